"""Time of one training step compared with plain PyTorch: ratios of medians over blocks of steps, taken in turn.

    python -m benchmarks.train_step        about 4 minutes on 2 idle cores; writes benchmarks/results/train_step.json

A whole step (forward, backward, clip, AdamW) of a GPT with 4 layers, width 128, 4 heads, 12 x 64 tokens, float32.
Every competitor runs in a separate process, undisturbed by the thread pools of the others, and waits on a pipe while
another is timed. PyTorch runs with several settings of threads and memory, and the best one counts. All start from the
same parameters and take the same batches; their losses must agree before anything is timed.

Next to the wall time is the CPU time of a step, user and system over all threads: on a shared machine it is the
steadier figure, and it shows page faults, which are system time.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.gpt_setting import Setting, tokens_and_targets

ROUNDS, STEPS = 15, 8
"""Rounds, and the steps that each competitor takes in a round."""
CHECKED_STEPS = 20
"""Steps whose losses are compared before anything is timed; they are also the warm-up."""
LOSS_TOLERANCE = 2e-3
"""Equal models agree to 1e-6 over these steps; another initialization or batch differs by more than the tolerance."""
TOO_SLOW = 5
"""A setting this many times slower than the best in the warm-up is left out, with a message."""
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_ARENA_MAX": "1"}
"""Settings of glibc that keep freed memory, as `training.keep_freed_memory` does within a process."""
PASSIVE = {"OMP_WAIT_POLICY": "passive"}
COMPETITORS: dict[str, tuple[str, dict[str, str]]] = {
    "jax_attention": ("jax", PASSIVE),
    "jax_attention, memory not kept": ("jax-plain", PASSIVE),
    "torch eager": ("torch", {}),
    "torch eager, passive waiting": ("torch", PASSIVE),
    "torch eager, passive waiting, memory kept": ("torch", PASSIVE | KEEP_MEMORY),
    "torch.compile": ("torch-compiled", {}),
    "torch.compile, passive waiting": ("torch-compiled", PASSIVE),
}
"""For each name the kind of step and the environment. By default GNU OpenMP spins for a while before it sleeps."""
FIGURES = ("median", "minimum", "cpu", "cpu, minimum", "cpu, system only")
RESULTS = Path(__file__).parent / "results" / "train_step.json"

Step = Callable[[np.ndarray, np.ndarray], float]


def torch_step(compiled: bool) -> Step:
    """One step of the PyTorch model."""
    import torch

    from benchmarks import torch_gpt

    torch.manual_seed(0)
    setting = Setting()
    step = torch_gpt.training_step(torch_gpt.GPT(setting), setting, compiled)
    return lambda tokens, targets: float(step(tokens, targets))


def torch_parameters() -> dict[str, np.ndarray]:
    """The initial parameters of `torch_step`."""
    import torch

    from benchmarks import torch_gpt

    torch.manual_seed(0)
    return torch_gpt.GPT(Setting()).arrays()


def jax_step(keep_memory: bool, parameters: dict[str, np.ndarray]) -> Step:
    """One step of the library's model, compiled, the state donated."""
    from jax_attention import data, models, training

    if keep_memory:
        training.keep_freed_memory()
    import jax

    setting = Setting()
    sizes = {name: getattr(setting, name) for name in ("vocab_size", "context", "width", "depth", "num_heads")}
    model = with_parameters(models.create(models.LMConfig(**sizes, use_bias=False)), parameters)
    optimizer = training.make_optimizer(
        training.OptimizerConfig(
            learning_rate=setting.learning_rate,
            schedule="constant",
            warmup=0,
            beta1=setting.betas[0],
            beta2=setting.betas[1],
            weight_decay=setting.weight_decay,
            clip=setting.clip,
        ),
        steps=1,
    )
    state = training.init_state(model, optimizer, rng=jax.random.key(0))
    # The program takes a list of arrays, as in `training.fit`: flattening nnx modules in Python takes time per call.
    arrays, structure = jax.tree.flatten(state)
    train_step = training.make_train_step(optimizer)

    def on_arrays(arrays: list, batch: data.Batch) -> tuple[list, dict]:
        new, metrics = train_step(jax.tree.unflatten(structure, arrays), batch)
        return jax.tree.leaves(new), metrics

    run = jax.jit(on_arrays, donate_argnums=0)
    ones = np.ones((setting.batch, setting.context), np.float32)

    def step(tokens: np.ndarray, targets: np.ndarray) -> float:
        nonlocal arrays
        arrays, metrics = run(arrays, data.Batch(tokens.astype(np.int32), targets.astype(np.int32), ones))
        return float(jax.block_until_ready((arrays, metrics))[1]["loss"])

    return step


def with_parameters(model: object, parameters: dict[str, np.ndarray]) -> object:
    """The JAX model with the parameters of the PyTorch model; kernels are transposed weights."""
    import jax
    import jax.numpy as jnp

    names = {
        "embedding": "tokens",
        "position": "positions",
        "final_norm": "norm",
        "attention_norm": "attention_norm",
        "feed_forward_norm": "feed_norm",
        "projections": "attention.project",
        "out": "attention.output",
        "up": "feed.0",
        "down": "feed.2",
    }

    def source(path: tuple, x: jax.Array) -> jax.Array:
        steps = [str(getattr(entry, "name", getattr(entry, "idx", ""))) for entry in path]
        name = next(names[step] for step in reversed(steps) if step in names)
        layer = next((f"blocks.{step}." for step in steps if step.isdigit()), "")
        weight = parameters[f"{layer}{name}.weight"]
        return jnp.array((weight.T if "kernel" in steps else weight).reshape(x.shape))

    return jax.tree_util.tree_map_with_path(source, model)


def work(kind: str, folder: Path) -> None:
    """Loop of a competitor's process: each line of stdin is a number of steps, answered with times and losses."""
    if kind == "parameters":
        np.savez(folder / "parameters.npz", **torch_parameters())
        return
    if kind.startswith("torch"):
        step = torch_step(kind == "torch-compiled")
    else:
        step = jax_step(kind == "jax", dict(np.load(folder / "parameters.npz")))
    batches, taken = tokens_and_targets(Setting(), CHECKED_STEPS), 0
    for line in sys.stdin:
        times, losses, before = [], [], resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(int(line)):
            batch = batches[taken % len(batches)]
            start = time.perf_counter()
            losses.append(step(*batch))
            times.append(time.perf_counter() - start)
            taken += 1
        after = resource.getrusage(resource.RUSAGE_SELF)
        answer = {"seconds": times, "losses": losses, "user": after.ru_utime - before.ru_utime}
        print(json.dumps(answer | {"system": after.ru_stime - before.ru_stime}), flush=True)


class Competitor:
    """A competitor's process, seen from the parent, and the times of its steps."""

    def __init__(self, kind: str, environment: dict[str, str], folder: Path):
        # Settings of waiting and memory must not be inherited: the competitors differ only in them.
        inherited = {name: x for name, x in os.environ.items() if name not in (*PASSIVE, *KEEP_MEMORY)}
        command = [sys.executable, "-m", "benchmarks.train_step", kind, str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=inherited | environment, **pipes)
        self.seconds, self.blocks, self.user, self.system = [], [], [], []

    def steps(self, count: int) -> list[float] | None:
        """Take steps and store their times; return the losses, or None if the process died (no C++ compiler)."""
        try:
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline() or "null")
        except BrokenPipeError:
            answer = None
        if answer is None:
            return None
        self.seconds += answer["seconds"]
        self.blocks.append(statistics.median(answer["seconds"]))
        self.user.append(answer["user"] / count)
        self.system.append(answer["system"] / count)
        return answer["losses"]

    def forget(self) -> None:
        """Drop the times measured so far: they are the warm-up."""
        for times in (self.seconds, self.blocks, self.user, self.system):
            times.clear()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def row(self) -> dict[str, float]:
        """Milliseconds per step."""
        cpu = [u + s for u, s in zip(self.user, self.system, strict=True)]
        parts = {"median": self.seconds, "cpu": cpu, "cpu, system only": self.system}
        row = {name: round(1e3 * statistics.median(times), 2) for name, times in parts.items()}
        least = {"minimum": round(1e3 * min(self.seconds), 2), "cpu, minimum": round(1e3 * min(cpu), 2)}
        return {name: (row | least)[name] for name in FIGURES}


def start(folder: Path) -> tuple[dict[str, Competitor], dict[str, float]]:
    """Start and warm up all competitors that run here; return them and the differences of their losses."""
    subprocess.run([sys.executable, "-m", "benchmarks.train_step", "parameters", str(folder)], check=True)
    running, losses = {}, {}
    for name, (kind, environment) in COMPETITORS.items():
        competitor = Competitor(kind, environment, folder)
        first_losses = competitor.steps(CHECKED_STEPS)
        if first_losses is None:
            print(f"{name}: does not run here, left out")
            continue
        running[name], losses[name] = competitor, first_losses
    drop_slow_competitors(running)
    reference = losses["jax_attention"]
    differences = {name: max(abs(a - b) for a, b in zip(reference, x, strict=True)) for name, x in losses.items()}
    if max(differences.values()) > LOSS_TOLERANCE:
        raise RuntimeError(
            f"losses: expected the same model to within {LOSS_TOLERANCE}, got differences {differences}."
        )
    return running, differences


def drop_slow_competitors(running: dict[str, Competitor]) -> None:
    """Leave out settings that were far slower than the best in the warm-up.

    On a loaded machine spinning threads take seconds for a step and would determine the time of the whole benchmark.
    """
    fastest = min(competitor.blocks[-1] for competitor in running.values())
    for name, competitor in list(running.items()):
        if competitor.blocks[-1] > TOO_SLOW * fastest:
            print(f"{name}: {1e3 * competitor.blocks[-1]:.0f} ms a step in the warm-up, left out")
            running.pop(name).close()
        else:
            competitor.forget()


def versions() -> dict[str, str]:
    """Versions of Python and of the frameworks."""
    from importlib.metadata import version

    return {"python": platform.python_version()} | {name: version(name) for name in ("jax", "flax", "optax", "torch")}


def summary(running: dict[str, Competitor]) -> dict[str, dict[str, float]]:
    """Time of the best PyTorch setting divided by that of jax_attention, for each figure; above 1 PyTorch is slower.

    "paired" is the median over rounds of the ratio within a round, whose noise both sides share.
    """
    rows = {name: competitor.row() for name, competitor in running.items()}
    library, ratios = running["jax_attention"], {}
    for kind in ("torch eager", "torch.compile"):
        peers = [name for name in running if name.startswith(kind)]
        if not peers:
            continue
        best = {key: min(rows[name][key] for name in peers) / rows["jax_attention"][key] for key in FIGURES[:4]}
        rounds = [[p / o for p, o in zip(running[name].blocks, library.blocks, strict=True)] for name in peers]
        best["paired"] = min(statistics.median(of_round) for of_round in rounds)
        ratios[kind] = {key: round(ratio, 2) for key, ratio in best.items()}
    return ratios


def main() -> None:
    """Measure, print and write the results."""
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        running, differences = start(Path(folder))
        for _ in range(ROUNDS):
            for competitor in running.values():
                competitor.steps(STEPS)
        for competitor in running.values():
            competitor.close()
    load.append(os.getloadavg()[0])
    rows = {name: competitor.row() for name, competitor in running.items()}
    for name, row in rows.items():
        print(f"{name:<44}", row)
    result = {
        "setting": dataclasses.asdict(Setting()) | {"dtype": "float32", "rounds": ROUNDS, "steps per round": STEPS},
        "versions": versions(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load average before and after": [round(x, 1) for x in load],
        "milliseconds per step": rows,
        "best torch / jax_attention": summary(running),
        f"largest difference of losses over {CHECKED_STEPS} steps": {
            name: float(f"{x:.1e}") for name, x in differences.items()
        },
    }
    print("best torch / jax_attention:", result["best torch / jax_attention"], "load:", load)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else work(sys.argv[1], Path(sys.argv[2]))
