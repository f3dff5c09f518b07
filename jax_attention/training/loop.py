"""The loop around a pure train step: dispatch, log, evaluate, sample, save, stop.

Step n is dispatched before the metrics of step n - 1 are read, so the device never waits for Python. The batch of step
n is a pure function of (seed, n), so a resumed run continues bit for bit without replaying earlier batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.short_repr import short_repr
from jax_attention.core.tree_paths import leaves_by_path, list_differences
from jax_attention.training import parallel, vocabulary
from jax_attention.training.checkpoints import Checkpoints
from jax_attention.training.loop_config import LoopConfig
from jax_attention.training.progress import Meter, Progress, summary
from jax_attention.training.signals import StopRequested, StopSignals
from jax_attention.training.step import merged_model

NAN_TARGETS = (
    " A loss of NaN from the first step on may come from targets that are no class, such as -100: give them weight 0, "
    "or bind ignore_index= to the loss."
)
"""Second cause of a loss of NaN: a compiled step cannot raise an error for a target."""


class TrainingDiverged(RuntimeError):
    """Error after too many updates in a row that were not finite; the message names the step and the loss."""


@short_repr
class FitResult(NamedTuple):
    """Result of `fit`."""

    state: Any
    """The state after the last update."""
    stopped: str | None
    """The signal that came, "SIGTERM", "SIGINT" or "SIGHUP"; None if there was none and all updates are done."""
    evaluation: dict[str, float] | None
    """The evaluation of this state, or None."""


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

    SIGTERM, SIGINT and SIGHUP finish the current step, save a checkpoint and return; a second one acts at once, as it
    would without `fit`. An evaluation that is running is given up.

    Args:
        state: a `TrainState` (or any pytree with `step` and `model`). Its memory is donated: continue with the state
            that is returned.
        train_step: pure function `(state, batch) -> (state, metrics)`; metrics are scalars, `loss` among them, and
            `skipped_in_a_row` if it skips updates that are not finite. Traced once.
        source: has the pure function `batch(seed, step, batch_size)`.
        config: a `LoopConfig`.
        evaluate: function of the model, from `make_evaluate`; its `loss` decides which checkpoint is the best.
        sample: function of the model that returns text to show. It must not keep the model: the next step donates it.
        checkpoints: the `Checkpoints` to save to.
        writers: `MetricsFile`, `TensorBoard`, or anything with `write(kind, step, values)`. They are not closed.
        progress: a display from `progress`. It is not closed.
        meter: a `Meter`, for speed and bits per byte.
        mesh: from `data_mesh`; all devices if None. Every device holds the whole state, so a state that is split over
            devices is refused instead of being copied to all of them.
        base: a frozen model, if `state.model` are `nn.Adapters` for it. The step is called as
            `train_step(state, batch, base)`, evaluations and samples get the model with its adapters, and checkpoints
            contain the adapters only.

    Returns:
        A `FitResult`. If `state.step` is at `config.steps` already, nothing is done.

    Raises:
        TrainingDiverged: after `config.stop_after` updates in a row that were not finite.
        ValueError: if `state.step` is beyond `config.steps`, the batch does not divide over the devices, the mesh has
            no axis `data`, the state is split over devices, the source has token ids that the model lacks, or
            `train_step` changes a shape, a dtype or the structure of the state.
        FileExistsError: before training, if there is a checkpoint of a step after `state.step`.

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
        The loop of nanodo (https://github.com/google-deepmind/nanodo), which reads metrics one step late.
    """
    mesh = parallel.data_mesh() if mesh is None else mesh
    parallel.check_divides(config.batch_size, mesh)
    first = int(state.step)
    _check_start(first, config, checkpoints)
    parallel.check_whole("state", state)
    parallel.check_whole("base", base)
    sizes = vocabulary.vocab_sizes(state.model if base is None else base)
    vocabulary.check_source(sizes, source)
    fail_unless(
        config.save_minutes == 0 or jax.process_count() == 1,
        f"save_minutes: expected 0 with {jax.process_count()} processes, whose clocks differ, got "
        f"{config.save_minutes}. Use checkpoint_every.",
    )
    run = _Run(config, evaluate, sample, checkpoints, writers, progress, Meter() if meter is None else meter)
    run.vocab_sizes = sizes
    run.base = parallel.replicate(base, mesh)
    arrays, run.structure = jax.tree.flatten(parallel.replicate(state, mesh))
    step = _jit_step(train_step, run.structure, run.base, mesh)
    with jax.set_mesh(mesh), StopSignals() as stop:
        arrays, done = run.train(step, arrays, source, first, stop)
        if done > first:
            run.finish(arrays, done, stop.received)
        elif checkpoints is not None:  # the process before may have been killed while it deleted old ones
            checkpoints.clean_up()
    evaluation = run.evaluation if run.evaluated_step == done else None
    return FitResult(jax.tree.unflatten(run.structure, arrays), stop.received, evaluation)


def _jit_step(train_step: Callable, structure: Any, base: Any, mesh: Mesh) -> Callable:
    """Jit the step on the list of the state's arrays, with the state donated and the base as an argument.

    A list, because flattening and unflattening nnx modules is Python: with the state as the argument a call of a
    compiled step cost milliseconds for a model of 4 layers, with a list a tenth of that. The base is an argument,
    because arrays that a function closes over become constants of the program, a second copy of the model.
    """
    base_arrays, base_structure = jax.tree.flatten(base)

    def step(arrays: list[jax.Array], batch: Any, base_arrays: list[jax.Array]) -> tuple[list[jax.Array], Any]:
        old = jax.tree.unflatten(structure, arrays)
        base_args = [jax.tree.unflatten(base_structure, base_arrays)] if base_arrays else []
        new, metrics = train_step(old, batch, *base_args)
        tables = [{n: describe_array(x) for n, x in leaves_by_path(tree).items()} for tree in (old, new)]
        lines = list_differences(*tables)
        fail_unless(
            not lines and jax.tree.structure(new) == structure,
            "train_step: expected a new state like the old one, got one that differs: "
            + ("; ".join(lines[:5]) or "other types or static fields")
            + ". Keep shapes, dtypes and structure, or every step would compile again.",
        )
        return jax.tree.leaves(new), metrics

    replicated, rows = parallel.replicated(mesh), parallel.rows(mesh)
    # Without out_shardings the compiler may choose another layout for the new state, and so compile step 2 again.
    compiled = jax.jit(step, donate_argnums=0, in_shardings=(replicated, rows, replicated), out_shardings=replicated)
    return lambda arrays, batch: compiled(arrays, batch, base_arrays)


def _check_start(first: int, config: LoopConfig, checkpoints: Checkpoints | None) -> None:
    fail_unless(
        first <= config.steps,
        f"state: expected a step of at most config.steps = {config.steps}, got {first}. Raise steps: it "
        "counts the updates of earlier runs too.",
    )
    later = [] if checkpoints is None else [step for step in checkpoints.steps if step > first]
    if later:
        raise FileExistsError(
            f"checkpoints: expected none beyond step {first}, where this run starts, got {later} in "
            f"{checkpoints.folder}. Nothing was written. Resume from {later[-1]}, or choose another folder."
        )


class _Run:
    """The actions between updates, and the state of one run that they need."""

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
        self.evaluated_step: int | None = None
        self.saved_step: int | None = None
        self.saved_at = time.monotonic()
        self.structure: Any = None
        self.base: Any = None
        self.vocab_sizes: dict[str, int] = {}
        self.meter_started, self.nonfinite_in_a_row = False, 0

    def train(self, step: Callable, arrays: list, source: Any, first: int, stop: StopSignals) -> tuple[list, int]:
        """Run updates first + 1, first + 2, … to the last one or a signal. Returns the arrays and the updates done."""
        unread, done = None, first
        while done < self.config.steps and stop.received is None:
            batch = source.batch(self.config.seed, done, self.config.batch_size)
            vocabulary.check_batch(self.vocab_sizes, batch)
            arrays, metrics = step(arrays, batch)  # Dispatched; the metrics of the step before are read now.
            done += 1
            if unread is not None:
                self.read(*unread)
            unread = (done, metrics, _tokens(batch))
            if self.is_stopover(done) or self.is_save_due():
                self.read(*unread)
                unread = None
                self.stopover(jax.tree.unflatten(self.structure, arrays), done, stop)
        if unread is not None:
            self.read(*unread)
        return arrays, done

    def is_due(self, every: int, step: int) -> bool:
        """Whether an action with the interval `every` happens after `step` updates; all happen at the end."""
        return step == self.config.steps or (every > 0 and step % every == 0)

    def is_stopover(self, step: int) -> bool:
        """Whether anything but logging happens after `step` updates."""
        config = self.config
        return any(self.is_due(k, step) for k in (config.evaluate_every, config.sample_every, config.checkpoint_every))

    def is_save_due(self) -> bool:
        """Whether `save_minutes` have passed since the last checkpoint."""
        return 0 < self.config.save_minutes * 60 <= time.monotonic() - self.saved_at

    def read(self, step: int, metrics: Any, tokens: int) -> None:
        """Wait for the metrics of an update, check that they are finite, and log them."""
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
        if self.meter_started:
            self.meter.count(step, tokens)
        else:
            self.meter_started = True  # The first update included compilation, which is no training time.
            self.meter.start(step)
        self.check_finite(step, values)
        if self.is_due(self.config.log_every, step):
            values |= self.meter.read(self.config.steps, values["loss"])
            self.write("train", step, values)
            if self.progress is not None:
                self.progress.update(step, values)

    def check_finite(self, step: int, values: dict[str, float]) -> None:
        """Stop a run whose updates are all skipped: it would go on to the end and learn nothing.

        Counted here by the loss, for steps that do not skip, and by the optimiser, whose count survives a resumption.
        """
        self.nonfinite_in_a_row = 0 if math.isfinite(values["loss"]) else self.nonfinite_in_a_row + 1
        in_a_row = max(self.nonfinite_in_a_row, int(values.get("skipped_in_a_row", 0)))
        if in_a_row < self.config.stop_after:
            return
        self.write("train", step, values)
        latest = self.checkpoints.latest if self.checkpoints is not None else None
        cure = "Start again" if latest is None else f"The last checkpoint is that of step {latest}. Start again"
        raise TrainingDiverged(
            f"train_step: expected finite updates, got {in_a_row} in a row that are not, the last at step {step} with "
            f"loss {values['loss']} and gradient norm {values.get('grad_norm', 'unknown')}. {cure} with a lower "
            "learning rate, a longer warmup or a smaller clipping norm."
            + (NAN_TARGETS if math.isnan(values["loss"]) else "")
        )

    def stopover(self, state: Any, step: int, stop: StopSignals) -> None:
        """Evaluate, save and sample between two updates; after a signal only save."""
        config = self.config
        with self.meter.paused():
            if self.evaluate is not None and self.is_due(config.evaluate_every, step) and stop.received is None:
                self.run_evaluation(state, step)
            if self.is_due(config.checkpoint_every, step) or self.is_save_due():
                self.save(state, step)  # Before sampling: an error there must not lose the step.
            if self.sample is not None and self.is_due(config.sample_every, step) and stop.received is None:
                text = self.sample(merged_model(self.base, state.model))
                self.write("sample", step, {"text": text})
                self.show(text)

    def run_evaluation(self, state: Any, step: int) -> None:
        """Evaluate and log, unless a signal comes meanwhile: then the step is saved without evaluation."""
        try:
            evaluation = self.evaluate(merged_model(self.base, state.model))
        except StopRequested:
            return
        self.evaluation, self.evaluated_step = evaluation, step
        self.write("evaluation", step, evaluation)
        self.show(f"step {step}: validation {summary(evaluation)}")

    def save(self, state: Any, step: int) -> None:
        """Save a checkpoint of this step unless there is one, with the evaluation if it is of this step."""
        if self.checkpoints is not None and self.saved_step != step:
            self.checkpoints.save(step, state, metrics=self.evaluation if self.evaluated_step == step else None)
            self.saved_step, self.saved_at = step, time.monotonic()

    def finish(self, arrays: list[jax.Array], step: int, received: str | None) -> None:
        """Save after the last update of this run, wait for the disk, and show the reason of an early stop."""
        if step < self.config.steps:
            self.save(jax.tree.unflatten(self.structure, arrays), step)
        if self.checkpoints is not None:
            self.checkpoints.wait()
        if received is not None:
            saved = "there is no checkpoint" if self.checkpoints is None else f"saved {self.checkpoints.folder}/{step}"
            self.show(f"{received}: stopped after step {step} of {self.config.steps}; {saved}.")

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        for writer in self.writers:
            writer.write(kind, step, values)

    def show(self, text: str) -> None:
        if self.progress is not None:
            self.progress.message(text)


def _tokens(batch: Any) -> int:
    """Number of tokens that the device works on: those of source and target, padding included."""
    sides = [getattr(batch, name).size for name in ("source_positions", "tokens") if hasattr(batch, name)]
    return sum(sides) if sides else jax.tree.leaves(batch)[0].size
