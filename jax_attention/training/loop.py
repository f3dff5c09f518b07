"""The loop around a pure train step: dispatch, log, evaluate, sample, save, stop.

Step n is dispatched before the metrics of step n - 1 are read, so the device never waits for Python; and the batch of
step n is a pure function of (seed, n), so a resumed run goes on bit for bit without replaying anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.tree_paths import leaves_by_path, list_differences
from jax_attention.training import parallel
from jax_attention.training.checkpoints import Checkpoints
from jax_attention.training.progress import Meter, Progress, summary
from jax_attention.training.signals import StopSignals
from jax_attention.training.step import over


class TrainingDiverged(RuntimeError):
    """Too many updates in a row were not finite; the message names the step and the loss."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long to train, and what to do how often; an interval of 0 means: only at the end.

        batch of step n = source.batch(seed, n, batch_size),        n = 0, …, steps - 1

    Args:
        steps: updates in all, those before a resumption included.
        batch_size: B, rows of the global batch; a multiple of the number of devices.
        seed: of the batches.
        log_every: updates between lines of metrics.
        evaluate_every: updates between evaluations.
        sample_every: updates between text samples.
        checkpoint_every: updates between checkpoints; there is one more when a signal stops the run. Make it a multiple
            of `evaluate_every`: only a checkpoint with an evaluation of its own step can be the best.
        stop_after: updates in a row that are not finite (and were skipped) before the run stops with an error.

    Returns:
        A frozen configuration.

    Raises:
        ValueError: if a number is too small.
        TypeError: if one is not an int.

    Example:
        >>> from jax_attention import training
        >>> training.LoopConfig(steps=100, batch_size=8).evaluate_every
        250

    Reference:
        none.
    """

    steps: int = 2000
    batch_size: int = 12
    seed: int = 0
    log_every: int = 10
    evaluate_every: int = 250
    sample_every: int = 0
    checkpoint_every: int = 250
    stop_after: int = 20

    def __post_init__(self) -> None:
        at_least_one = ("batch_size", "stop_after")
        for field in dataclasses.fields(self):
            least = 1 if field.name in at_least_one else 0
            check_int(field.name, getattr(self, field.name), least, "It is a setting of LoopConfig.")


class FitResult(NamedTuple):
    """What `fit` returns: the state, why it stopped early (None, "SIGTERM", "SIGINT"), the last evaluation or None."""

    state: Any
    stopped: str | None
    evaluation: dict[str, float] | None


def fit(
    state: Any,
    train_step: Callable,
    source: Any,
    config: LoopConfig,
    *,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    sample: Callable[[Any], str] | None = None,
    checkpoints: Checkpoints | None = None,
    writers: Sequence[Any] = (),
    progress: Progress | None = None,
    meter: Meter | None = None,
    mesh: Mesh | None = None,
    base: Any = None,
) -> FitResult:
    """Train from `state.step` to `config.steps`.

        for n in state.step, …, steps - 1:   state, metrics = train_step(state, source.batch(seed, n, batch_size))

    SIGTERM and SIGINT finish the step under way, save a checkpoint and return; a second SIGINT aborts at once.

    Args:
        state: a `TrainState` (or any pytree with `step` and `model`). Its memory is donated: go on with the one that
            is returned.
        train_step: pure function `(state, batch) -> (state, metrics)`; metrics are scalars, `loss` among them, and
            `skipped_in_a_row` if it skips updates that are not finite. Traced once.
        source: has the pure function `batch(seed, step, batch_size)`.
        config: a `LoopConfig`.
        evaluate: function of the model, from `make_evaluate`; its `loss` judges checkpoints.
        sample: function of the model that returns text to show. The model's memory is its own only during the call.
        checkpoints: where to save.
        writers: `MetricsFile`, `TensorBoard`, or anything with `write(kind, step, values)`. They are not closed.
        progress: a display, from `progress`. It is not closed.
        meter: a `Meter`, for speed and bits per byte.
        mesh: from `data_mesh`; all devices if None.
        base: a model that is read and never changed, under the `nn.Adapters` in `state.model`: the step is called as
            `train_step(state, batch, base)`, evaluations and samples get the model with its adapters, checkpoints
            hold the adapters alone.

    Returns:
        A `FitResult`. If `state.step` is at `config.steps` already, nothing is done.

    Raises:
        TrainingDiverged: after `config.stop_after` updates in a row that were not finite.
        ValueError: if `state.step` is beyond `config.steps`, the batch does not divide over the devices, or
            `train_step` changes a shape, a dtype or the structure of the state.
        FileExistsError: before training, if a checkpoint lies in the way, at `state.step` + 1 or later.

    Example:
        >>> import collections
        >>> import jax.numpy as jnp
        >>> from jax_attention import training
        >>> State = collections.namedtuple("State", "model step")
        >>> class Source:
        ...     def batch(self, seed, step, batch_size):
        ...         return jnp.full(batch_size, 8.0)
        >>> def train_step(state, batch):
        ...     error = state.model - batch.mean()
        ...     return State(state.model - error / 2, state.step + 1), {"loss": error**2}
        >>> config = training.LoopConfig(steps=3, batch_size=2)
        >>> training.fit(State(jnp.zeros(()), jnp.zeros((), int)), train_step, Source(), config).state
        State(model=Array(7., dtype=float32), step=Array(3, dtype=int32))

    Reference:
        The nanodo loop (https://github.com/google-deepmind/nanodo) for reading metrics one step behind.
    """
    mesh = parallel.data_mesh() if mesh is None else mesh
    parallel.check_divides(config.batch_size, mesh)
    first = int(state.step)
    _check_start(first, config, checkpoints)
    run = _Run(config, evaluate, sample, checkpoints, writers, progress, Meter() if meter is None else meter)
    run.base = parallel.replicate(base, mesh)
    arrays, run.structure = jax.tree.flatten(parallel.replicate(state, mesh))
    step = _compiled_later(train_step, run.structure, run.base, mesh)
    with jax.set_mesh(mesh), StopSignals() as stop:
        arrays, done = run.train(step, arrays, source, first, stop)
        if done > first:
            run.finish(arrays, done, stop.received)
    stopped = stop.received if done < config.steps else None
    evaluation = run.evaluation if run.evaluated == done else None
    return FitResult(jax.tree.unflatten(run.structure, arrays), stopped, evaluation)


def _compiled_later(train_step: Callable, structure: Any, base: Any, mesh: Mesh) -> Callable:
    """The step on the list of the state's arrays, jitted, with the state donated and the base an argument, as arrays
    that a function closes over become constants of the program.

    A list, because taking nnx modules apart and putting them together is Python: with the state as the argument every
    call of a compiled step cost milliseconds for a model of 4 layers, with a list a tenth of that.
    """

    frozen, shape_of_base = jax.tree.flatten(base)

    def step(arrays: list[jax.Array], batch: Any, frozen: list[jax.Array]) -> tuple[list[jax.Array], Any]:
        old = jax.tree.unflatten(structure, arrays)
        new, metrics = train_step(old, batch, *([jax.tree.unflatten(shape_of_base, frozen)] if frozen else []))
        tables = [{n: describe_array(x) for n, x in leaves_by_path(tree).items()} for tree in (old, new)]
        lines = list_differences(*tables)
        fail_unless(
            not lines and jax.tree.structure(new) == structure,
            "train_step: expected a new state like the old one, got one that differs: "
            + ("; ".join(lines[:5]) or "other types or static fields")
            + ". Keep shapes, dtypes and structure, or every step would compile anew.",
        )
        return jax.tree.leaves(new), metrics

    whole, rows = parallel.replicated(mesh), parallel.rows(mesh)
    # out_shardings: left alone, the compiler may choose another layout for the new state and so compile step 2 anew.
    compiled = jax.jit(step, donate_argnums=0, in_shardings=(whole, rows, whole), out_shardings=whole)
    return lambda arrays, batch: compiled(arrays, batch, frozen)


def _check_start(first: int, config: LoopConfig, checkpoints: Checkpoints | None) -> None:
    fail_unless(
        first <= config.steps,
        f"state: expected a step of at most config.steps = {config.steps}, got {first}. Raise steps: it counts all.",
    )
    ahead = [] if checkpoints is None else [step for step in checkpoints.steps if step > first]
    if ahead:
        raise FileExistsError(
            f"checkpoints: expected none beyond step {first}, where this run starts, got {ahead} in "
            f"{checkpoints.folder}. Nothing was written. Resume from {ahead[-1]}, or choose another folder."
        )


class _Run:
    """What happens between updates, and what has to be remembered for it."""

    def __init__(
        self,
        config: LoopConfig,
        evaluate: Callable | None,
        sample: Callable | None,
        checkpoints: Checkpoints | None,
        writers: Sequence[Any],
        progress: Progress | None,
        meter: Meter,
    ):
        self.config, self.evaluate, self.sample, self.checkpoints = config, evaluate, sample, checkpoints
        self.writers, self.progress, self.meter = writers, progress, meter
        self.evaluation: dict[str, float] | None = None
        self.evaluated: int | None = None
        self.saved: int | None = None
        self.structure: Any = None
        self.base: Any = None
        self.started, self.bad = False, 0

    def train(self, step: Callable, arrays: list, source: Any, first: int, stop: StopSignals) -> tuple[list, int]:
        """Updates first + 1, first + 2, … until the last one or a signal: the new arrays and how many are done."""
        unread, done = None, first
        while done < self.config.steps and stop.received is None:
            batch = source.batch(self.config.seed, done, self.config.batch_size)
            arrays, metrics = step(arrays, batch)
            done += 1
            if unread is not None:
                self.read(*unread)
            unread = (done, metrics, _tokens(batch))
            if self.stops_at(done):
                self.read(*unread)
                unread = None
                self.stopover(jax.tree.unflatten(self.structure, arrays), done, stop)
        if unread is not None:
            self.read(*unread)
        return arrays, done

    def due(self, every: int, step: int) -> bool:
        """Whether something happens after `step` updates that happens every so many and at the end."""
        return step == self.config.steps or (every > 0 and step % every == 0)

    def stops_at(self, step: int) -> bool:
        config = self.config
        return any(self.due(k, step) for k in (config.evaluate_every, config.sample_every, config.checkpoint_every))

    def read(self, step: int, metrics: Any, tokens: int) -> None:
        """Wait for the metrics of an update, judge them, log them."""
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
        if self.started:
            self.meter.count(step, tokens)
        else:
            self.started = True  # The first update included compilation.
            self.meter.start(step)
        self.check_finite(step, values)
        if self.due(self.config.log_every, step):
            values |= self.meter.read(self.config.steps, values["loss"])
            self.write("train", step, values)
            if self.progress is not None:
                self.progress.update(step, values)

    def check_finite(self, step: int, values: dict[str, float]) -> None:
        self.bad = 0 if math.isfinite(values["loss"]) else self.bad + 1
        in_a_row = max(self.bad, int(values.get("skipped_in_a_row", 0)))
        if in_a_row < self.config.stop_after:
            return
        self.write("train", step, values)
        saved = self.checkpoints.latest if self.checkpoints is not None else None
        cure = "Start again" if saved is None else f"The last checkpoint is that of step {saved}. Start again"
        raise TrainingDiverged(
            f"train_step: expected finite updates, got {in_a_row} in a row that are not, the last at step {step} with "
            f"loss {values['loss']} and gradient norm {values.get('grad_norm', 'unknown')}. {cure} with a lower "
            "learning rate, a longer warmup or a smaller clipping norm."
        )

    def stopover(self, state: Any, step: int, stop: StopSignals) -> None:
        """Between two updates: evaluate, save, sample. A signal leaves only the saving to do."""
        config = self.config
        with self.meter.paused():
            if self.evaluate is not None and self.due(config.evaluate_every, step) and stop.received is None:
                self.evaluation, self.evaluated = self.evaluate(over(self.base, state.model)), step
                self.write("evaluation", step, self.evaluation)
                self.say(f"step {step}: validation {summary(self.evaluation)}")
            if self.due(config.checkpoint_every, step):
                self.save(state, step)  # before sampling, whose errors must not cost the step
            if self.sample is not None and self.due(config.sample_every, step) and stop.received is None:
                text = self.sample(over(self.base, state.model))
                self.write("sample", step, {"text": text})
                self.say(text)

    def save(self, state: Any, step: int) -> None:
        """A checkpoint, unless there is one of this step; with the evaluation, if it is of this step."""
        if self.checkpoints is not None and self.saved != step:
            self.checkpoints.save(step, state, metrics=self.evaluation if self.evaluated == step else None)
            self.saved = step

    def finish(self, arrays: list[jax.Array], step: int, received: str | None) -> None:
        """After the last update of this run: everything on disk, and the reason said if it is not the end."""
        if step < self.config.steps:
            self.save(jax.tree.unflatten(self.structure, arrays), step)
        if self.checkpoints is not None:
            self.checkpoints.wait()
        if step < self.config.steps:
            kept = (
                "no checkpoint was asked for" if self.checkpoints is None else f"saved {self.checkpoints.folder}/{step}"
            )
            self.say(f"{received}: stopped after step {step} of {self.config.steps}; {kept}.")

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        for writer in self.writers:
            writer.write(kind, step, values)

    def say(self, text: str) -> None:
        if self.progress is not None:
            self.progress.message(text)


def _tokens(batch: Any) -> int:
    """Positions of a batch, padding included: what the device works on; of pairs those of both sides."""
    sides = [getattr(batch, name).size for name in ("source_positions", "tokens") if hasattr(batch, name)]
    return sum(sides) if sides else jax.tree.leaves(batch)[0].size
