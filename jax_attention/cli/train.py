"""`jax-attention train`: train a language model on text and write its folder."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import numpy as np
import tyro

from jax_attention import data, models, nn, training
from jax_attention.cli import pretrained, report, run_folder
from jax_attention.cli.machine import check_machine
from jax_attention.cli.options import ModelOptions, PresetName, model_config, tuned_config
from jax_attention.cli.output import print_line
from jax_attention.cli.settings import TrainSettings
from jax_attention.core.checks import check_int, fail_unless


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a language model on text; everything is written into one folder.

    Args:
        out: folder of the run, new or empty; runs/PRESET-DATE-TIME if left out.
        resume: continue the run in --out from its newest checkpoint; its settings come from the folder.
        preset: config to start from, tiny if None; every field can be changed.
        origin: folder of a Hugging Face model to train further, with its tokenizer. The default --learning-rate is too
            large for it: give a smaller one.
        model: changes to the preset; with --from only those that keep the architecture.
        settings: text, tokens, optimiser, loop.
        config: TOML file with options; those on the command line win.
    """

    outlives_reader: ClassVar[bool] = True
    """Whether the command goes on without a reader of its output."""

    out: Path | None = None
    resume: bool = False
    preset: PresetName | None = None
    origin: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    model: ModelOptions = field(default_factory=ModelOptions)
    settings: TrainSettings = field(default_factory=TrainSettings)
    config: Path | None = None

    def run(self) -> None:
        """Start or resume the training."""
        training.keep_freed_memory()  # before the first computation: arenas that exist by then stay as they are
        if not self.resume:
            start(self.settings, self.preset, self.model, self.out, self.origin)
            return
        if self.out is None:
            raise ValueError("out: expected the folder of the run to resume, got none. Give --out FOLDER.")
        if dataclasses.replace(self, out=None, resume=False) != Train():
            raise ValueError(
                "resume: expected no other option than --out, as all settings come from the folder, got some that "
                "would be ignored. Leave them out, or start a new run without --resume."
            )
        resume(self.out)


def start(
    settings: TrainSettings,
    preset: PresetName | None,
    options: ModelOptions,
    out: Path | None = None,
    origin: Path | None = None,
) -> Path:
    """Train a new model, or a Hugging Face model further; return the folder of the run.

    The folder is written only after everything that can be checked was checked.
    """
    _check_origin(settings, preset, origin)
    out = _default_folder(preset or "tiny" if origin is None else origin.resolve().name) if out is None else out
    run_folder.check_empty(out)
    files = tuple(file if file == "-" else str(Path(file).absolute()) for file in settings.files)
    base_model = None if origin is None else pretrained.open_origin(origin)

    def make_config(vocab_size: int) -> models.LMConfig:
        if base_model is None:
            return model_config(preset or "tiny", options, vocab_size)
        return tuned_config(base_model.config, options)

    if settings.length is None:
        length = make_config(1).context if base_model is None else base_model.length
        settings = dataclasses.replace(settings, length=length)
    settings = dataclasses.replace(settings, files=files)
    _check_model(make_config(1), settings)
    check_machine(make_config(settings.vocab_size or 1), settings)
    settings.parts()
    corpus = data.prepare(
        files,
        tokenizer=settings.tokenizer or "subwords" if base_model is None else base_model.tokenizer,
        vocab_size=settings.vocab_size,
        length=settings.length,
        packed=settings.packed,
        validation_fraction=settings.validation_fraction,
    )
    config = make_config(corpus.tokenizer.vocab_size)
    report.prompt_ids(corpus, config.context, settings.prompt)
    stored_origin = None if base_model is None else base_model.origin()
    run = run_folder.Run(out, config, settings.to_json(), corpus.tokenizer, stored_origin)
    state, base = _initial_state(run, settings)
    run_folder.create_folder(run, corpus)
    _print_description(run, settings, corpus, state.model)
    return _train(run, settings, corpus, state, base)


def resume(out: Path) -> Path:
    """Continue the run of a folder, bit for bit, from its newest checkpoint, or from the start if it has none."""
    run = run_folder.open_run(out)
    settings, step = TrainSettings.from_json(run.settings), run.checkpoints.latest or 0
    print_line(f"resuming {run.folder} at step {step} of {settings.loop.steps} on {settings.devices_text()}")
    state, base = _restored_state(run, settings, step) if step else _initial_state(run, settings)
    return _train(run, settings, run.corpus(), state, base, resumed=step)


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


def _restored_state(run: run_folder.Run, settings: TrainSettings, step: int) -> tuple[training.TrainState, Any]:
    """The state at a checkpoint, and the base model of adapters; a fully trained model needs no base any more."""
    base = None if settings.lora is None else run.base()
    return run.checkpoints.restore(step, like=state_shapes(run, settings)), base


def _train(
    run: run_folder.Run,
    settings: TrainSettings,
    corpus: data.Corpus,
    state: training.TrainState,
    base: models.TransformerLM | None,
    resumed: int | None = None,
) -> Path:
    checkpoints = training.Checkpoints(run.folder / run_folder.CHECKPOINTS, keep=settings.keep)
    prompt = report.prompt_ids(corpus, run.config.context, settings.prompt)
    mesh = settings.mesh
    evaluate, show = _evaluate(corpus, settings.loop.batch_size, mesh), training.progress(settings.loop.steps)
    meter = report.meter(run, corpus, state.model, mesh)
    with contextlib.ExitStack() as closing:
        closing.callback(show.close)
        writers: list[Any] = [training.MetricsFile(run.folder / run_folder.METRICS, after=resumed)]
        if settings.tensorboard:
            writers.append(training.TensorBoard(run.folder / "tensorboard", after=resumed))
        for writer in writers:
            closing.callback(writer.close)
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
    if fitted.stopped is None:
        model = fitted.state.model if base is None else nn.apply_adapters(base, fitted.state.model)
        report.finish(run, model, fitted.evaluation or evaluate(model), corpus, prompt)
    else:
        print_line(f"continue with: jax-attention train --resume --out {run.folder}")
    return run.folder


def _check_origin(settings: TrainSettings, preset: str | None, origin: Path | None) -> None:
    """Refuse options that do not apply to a new model, or to a model that is trained further."""
    if origin is None:
        fail_unless(settings.lora is None, "lora: expected --from FOLDER with it, as a new model has no base to adapt.")
        return
    options = {"preset": preset, "tokenizer": settings.tokenizer, "vocab_size": settings.vocab_size}
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
    for rope in (config.rope, config.local_rope):
        if settings.sample_tokens and config.position == "rotary" and rope is not None and rope.scaling.needs_length:
            raise ValueError(
                f"rope: expected frequencies that do not change with the length, to generate samples with a cache, got "
                f"{rope.scaling!r}. Add --sample-tokens 0."
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
    source = ", ".join(Path(file).name for file in settings.files) or "the sources of Python's standard library"
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
