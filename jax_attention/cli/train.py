"""`jax-attention train`: train a language model on text and write its folder."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import shlex
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import numpy as np
import tyro

from jax_attention import data, models, nn, training
from jax_attention.cli import lineage, pretrained, report, run_folder
from jax_attention.cli.machine import check_machine
from jax_attention.cli.options import ModelOptions, PresetName, model_config, option_names, tuned_config
from jax_attention.cli.output import print_line
from jax_attention.cli.own_code import OwnCode
from jax_attention.cli.settings import TrainSettings
from jax_attention.core.checks import check_int, fail_unless
from jax_attention.core.folder_lock import FolderLock
from jax_attention.core.os_errors import describe_os_error
from jax_attention.training.checkpoint_folder import complete_steps


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a language model on text; everything is written into one folder.

    Args:
        out: folder of the run, new or empty; runs/PRESET-DATE-TIME if left out.
        resume: continue the run in --out from its newest checkpoint that is whole; its settings come from the folder.
            Those that change neither the model nor the batches may be given again, such as --steps or --learning-rate.
        preset: config to start from, tiny if None; every field can be changed.
        origin: folder of a Hugging Face model or of a run to train further, with its tokenizer; without files, a run's
            text too. The default --learning-rate is too large for a trained model: give a smaller one.
        from_step: step of the checkpoint of that run; the one with the best validation loss if None.
        whole_state: also take over the run's step, moments of the optimiser and random key.
        model: changes to the preset; with --from only those that keep the architecture.
        settings: text, tokens, optimiser, loop.
        config: TOML file with options; those on the command line win.
        code: code of your own that may run.
    """

    outlives_reader: ClassVar[bool] = True
    """Whether the command goes on without a reader of its output."""

    out: Path | None = None
    resume: bool = False
    preset: PresetName | None = None
    origin: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    from_step: int | None = None
    whole_state: bool = False
    model: ModelOptions = field(default_factory=ModelOptions)
    settings: TrainSettings = field(default_factory=TrainSettings)
    config: Path | None = None
    code: OwnCode = field(default_factory=OwnCode)

    def run(self) -> int:
        """Start or resume the training; return the exit status."""
        training.keep_freed_memory()  # before the first computation: arenas that exist by then stay as they are
        if not self.resume:
            return start(self)
        if self.out is None:
            raise ValueError("out: expected the folder of the run to resume, got none. Give --out FOLDER.")
        ignored = self._ignored_by_resume()
        fail_unless(
            not ignored,
            f"resume: expected only --out and settings of the training, as the run decides its model, got "
            f"{', '.join(ignored)}, which would be ignored. Leave that out, or start a new run with --from.",
        )
        return resume(self.out, self.settings, self.code.modules)

    def _ignored_by_resume(self) -> list[str]:
        """The given options that a resumed run does not read."""
        names, fresh = option_names(Train), Train()
        own = ("preset", "origin", "from_step", "whole_state", "config")
        given = [name for name in own if getattr(self, name) != getattr(fresh, name)]
        fields = [field.name for field in dataclasses.fields(self.model)]
        given += [name for name in fields if getattr(self.model, name) != getattr(fresh.model, name)]
        return [names[name] for name in given]


def start(command: Train) -> int:
    """Train a new model, or one of a folder further.

    The folder is written only after everything that can be checked was checked.
    """
    settings, preset, origin = command.settings, command.preset, command.origin
    _check_origin(command)
    name = preset or "tiny" if origin is None else origin.resolve().name
    out = _default_folder(name) if command.out is None else command.out
    run_folder.check_empty(out)
    files = tuple(file if file == "-" else str(Path(file).absolute()) for file in settings.files)
    base = None if origin is None else lineage.open_origin(origin, command.from_step, command.code.modules)
    is_run = isinstance(base, lineage.RunOrigin)
    if command.whole_state:
        lineage.check_whole_state(base, settings)

    def make_config(vocab_size: int) -> models.LMConfig:
        if base is None:
            return model_config(preset or "tiny", command.model, vocab_size, command.code.names)
        return tuned_config(base.config, command.model, keep_dtypes=is_run)

    if settings.length is None:
        settings = dataclasses.replace(settings, length=make_config(1).context if base is None else base.length)
    settings = dataclasses.replace(settings, files=files)
    _check_model(make_config(1), settings)
    check_machine(make_config(settings.vocab_size or 1), settings)
    settings.parts()
    corpus = base.run.corpus(settings.length) if is_run and not files else _read_corpus(settings, base)
    config = make_config(corpus.tokenizer.vocab_size)
    report.prompt_ids(corpus, config.context, settings.prompt)
    stored_origin = None if base is None else base.origin()
    run = run_folder.Run(out, config, settings.to_json(), corpus.tokenizer, stored_origin)
    if command.whole_state:
        state, model = lineage.restored_state(base, state_shapes(run, settings)), None
        lineage.check_steps(settings, base.step)
    else:
        state, model = _initial_state(run, settings)
    run = run_folder.create_folder(run, corpus)
    _print_description(run, settings, corpus, state.model)
    with _lock(run.folder):
        return _train(run, settings, corpus, state, model, save_first=is_run)


def _read_corpus(settings: TrainSettings, base: pretrained.Pretrained | lineage.RunOrigin | None) -> data.Corpus:
    return data.prepare(
        settings.files,
        tokenizer=settings.tokenizer or "subwords" if base is None else base.tokenizer,
        vocab_size=settings.vocab_size,
        length=settings.length,
        packed=settings.packed,
        validation_fraction=settings.validation_fraction,
    )


def resume(out: Path, settings: TrainSettings | None = None, allow_code: tuple[str, ...] = ()) -> int:
    """Continue the run of a folder, bit for bit, from its newest whole checkpoint; from the start if it has none.

    Settings that differ from those of the folder take their place, from the step at which the run goes on.
    """
    with _lock(run_folder.open_run(out, allow_code).folder):
        run = run_folder.open_run(out, allow_code)  # again, as another process may have changed it before the lock
        if run.identity is None:
            run.corpus()  # reads all tokens and compares their checksums
            run = run_folder.give_identity(run)
            print_line(
                f"run of an earlier version: {run.folder} had no identity, so its checkpoints and tokens were checked "
                f"by their shapes and checksums only. It is run {run.identity['id']} from now on."
            )
        old = TrainSettings.from_json(run.settings)
        settings = old if settings is None else settings
        changes = lineage.changed_settings(old, settings)
        lineage.check_steps(settings, run.checkpoints.latest or 0)
        settings.parts()
        if (run.folder / run_folder.METRICS).exists():
            training.read_metrics(run.folder / run_folder.METRICS)  # a damaged file is refused before anything changes
        corpus = run.corpus()
        state, base, step, problems = _resumed_state(run, settings)
        lineage.check_steps(settings, step)
        for problem in problems:
            print_line(problem)
        print_line(f"resuming {run.folder} at step {step} of {settings.loop.steps} on {settings.devices_text()}")
        if changes:
            run = run_folder.change_settings(run, settings.to_json(), step, changes)
            print_line("changed    " + ", ".join(f"{name}: {a} -> {b}" for name, (a, b) in changes.items()))
            # The schedule is a function of all steps: with more of them, the rate at this step is another one.
            before, after = (float(x.schedule(step)) for x in (old, settings))
            print_line(f"rate       {before:.3g} -> {after:.3g} at step {step}")
        return _train(run, settings, corpus, state, base, resumed=step)


def _resumed_state(
    run: run_folder.Run, settings: TrainSettings
) -> tuple[training.TrainState, models.TransformerLM | None, int, list[str]]:
    """The state to go on from, the base model of adapters, the step, and a sentence about each damaged checkpoint."""
    if not run.checkpoints.has_any:
        return *_initial_state(run, settings), 0, []
    state, step, problems = run.checkpoints.restore_newest(like=state_shapes(run, settings))
    # A fully trained model needs its base no more.
    return state, None if settings.lora is None else run.base(), step, problems


def _lock(folder: Path) -> FolderLock:
    """The right to write to the folder of a run, for one process at a time."""
    lock = FolderLock(folder)
    if not lock.is_supported:
        print_line(f"no lock    the file system of {folder} has none: make sure that only one process trains there")
    return lock


def _initial_state(
    run: run_folder.Run, settings: TrainSettings
) -> tuple[training.TrainState, models.TransformerLM | None]:
    """The state before the first step, which the run and its seed determine; and the base model of adapters."""
    start_rng, rng = jax.random.split(jax.random.key(settings.loop.seed))
    trained, base = run.start(start_rng)
    return training.init_state(trained, settings.parts()[0], rng=rng), base


def state_shapes(run: run_folder.Run, settings: TrainSettings) -> training.TrainState:
    """The train state that a checkpoint of the run holds, as shapes."""
    make = lambda trained: training.init_state(trained, settings.parts()[0], rng=jax.random.key(0))  # noqa: E731
    return jax.eval_shape(make, run.trained_shapes())


def _train(
    run: run_folder.Run,
    settings: TrainSettings,
    corpus: data.Corpus,
    state: training.TrainState,
    base: models.TransformerLM | None,
    resumed: int | None = None,
    save_first: bool = False,
) -> int:
    """Train, report, and return the exit status. With `save_first` the state is saved before the first step too."""
    checkpoints = run.open_checkpoints(settings.keep)
    if save_first:
        checkpoints.save(int(state.step), state)
    prompt = report.prompt_ids(corpus, run.config.context, settings.prompt)
    mesh = settings.mesh
    evaluate, show = _evaluate(corpus, settings.loop.batch_size, mesh), training.progress(settings.loop.steps)
    meter = report.meter(run, corpus, state.model, mesh)
    with contextlib.ExitStack() as closing:
        closing.callback(show.close)
        writers: list[Any] = [training.MetricsFile(run.folder / run_folder.METRICS, after=resumed)]
        if settings.tensorboard:
            writers.append(training.TensorBoard(run.folder / run_folder.TENSORBOARD, after=resumed))
        for writer in writers:
            closing.callback(writer.close)
        try:
            fitted = training.fit(
                state,
                settings.parts()[1],
                corpus.train,
                settings.loop,
                evaluate=evaluate,
                sample=_sampler(run, settings, prompt),
                checkpoints=checkpoints,
                writers=writers,
                progress=show,
                meter=meter,
                mesh=mesh,
                base=base,
            )
        except OSError as error:
            raise OSError(f"{describe_os_error(error)} {_way_on(run)}") from None
    if fitted.stopped is not None:
        print_line(f"continue with: {_resume_command(run)}")
        return 128 + signal.Signals[fitted.stopped]
    model = fitted.state.model if base is None else nn.apply_adapters(base, fitted.state.model)
    report.finish(run, model, fitted.evaluation or evaluate(model), corpus, prompt)
    return 0


def _resume_command(run: run_folder.Run) -> str:
    return f"jax-attention train --resume --out {shlex.quote(str(run.folder))}"


def _way_on(run: run_folder.Run) -> str:
    """What is safe after an error of the operating system, and the command that goes on."""
    steps = complete_steps(run.folder / run_folder.CHECKPOINTS)
    safe = f"The checkpoint of step {steps[-1]} is complete" if steps else "No checkpoint is complete yet"
    return f"{safe}. Then continue with: {_resume_command(run)}"


def _check_origin(command: Train) -> None:
    """Refuse options that do not apply to a new model, or to a model that is trained further."""
    settings = command.settings
    if command.origin is None:
        fail_unless(settings.lora is None, "lora: expected --from FOLDER with it, as a new model has no base to adapt.")
        fail_unless(
            command.from_step is None and not command.whole_state,
            "from_step, whole_state: expected --from RUN with them, got none. Leave them out.",
        )
        return
    options = {"preset": command.preset, "tokenizer": settings.tokenizer, "vocab_size": settings.vocab_size}
    wrong = [f"--{name.replace('_', '-')}" for name, x in options.items() if x is not None]
    fail_unless(
        not wrong,
        f"from: expected the folder to decide the model and its tokenizer, got {', '.join(wrong)}. Leave them out.",
    )


def _check_model(config: models.LMConfig, settings: TrainSettings) -> None:
    """Reject settings that would silently train a useless model, or fail only at the end."""
    check_int("length", settings.length, 1, "It is the number of tokens per row.")
    fail_unless(
        settings.length <= config.context,
        f"length: expected at most the model's context of {config.context}, got {settings.length}.",
    )
    if config.sees_future():
        raise ValueError(
            f"mask: expected one that hides the future, got {config.mask!r}: tokens could attend to their targets. "
            "Write 'causal() & ...'."
        )


def _sampler(run: run_folder.Run, settings: TrainSettings, prompt: np.ndarray) -> Any:
    if settings.sample_tokens == 0:
        return None
    return lambda model: report.sample_text(run, model, prompt, settings.sample_tokens)


def _evaluate(corpus: data.Corpus, batch_size: int, mesh: jax.sharding.Mesh) -> Any:
    """A function from a model to its validation loss and bits per byte, which include the cost of escapes."""
    inner = training.make_evaluate(corpus.validation, batch_size, mesh=mesh)

    def evaluate(model: Any) -> dict[str, float]:
        metrics = inner(model)
        bits_per_byte = corpus.bits_per_byte(metrics["loss"])
        return {"loss": metrics["loss"], "bits_per_byte": bits_per_byte, "tokens": metrics["tokens"]}

    return evaluate


def _print_description(run: run_folder.Run, settings: TrainSettings, corpus: data.Corpus, trained: Any) -> None:
    config = run.config
    of_a_run = run.origin is not None and "run" in run.origin
    default = f"the text of {run.origin['folder']}" if of_a_run else "the sources of Python's standard library"
    source = ", ".join(Path(file).name for file in settings.files) or default
    print_line(
        f"text       {source}: {corpus.train_bytes:,} bytes to train on, {corpus.validation_bytes:,} held out "
        f"({len(corpus.names[1])} of {sum(map(len, corpus.names))} documents)"
    )
    kind = settings.tokenizer or "subwords" if run.origin is None else run.origin["folder"]
    print_line(f"tokens     {kind}, {corpus.tokenizer.vocab_size} ids")
    print_line(
        f"model      {report.count_parameters(config):,} parameters: depth {config.depth}, width {config.width}, "
        f"{config.num_heads} heads, context {config.context}, position {config.position}"
    )
    if isinstance(trained, nn.Adapters):
        count = sum(x.size for x in jax.tree.leaves(trained))
        print_line(f"adapters   {count:,} parameters: rank {settings.lora} for {len(trained.down)} kernels")
    print_line(
        f"training   {settings.loop.steps} steps of {settings.loop.batch_size} x {run.length} tokens on "
        f"{settings.devices_text()}"
    )
    print_line(f"folder     {run.folder}")


def _default_folder(preset: str) -> Path:
    return Path("runs") / f"{preset}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
