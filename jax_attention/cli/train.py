"""`jax-attention train`: from text to a trained model in a folder."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from jax_attention import data, models, training
from jax_attention.cli import report, run_folder
from jax_attention.cli.options import ModelOptions, PresetName, model_config
from jax_attention.cli.output import say


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What decides the numbers of a run apart from the model: text, tokens, optimiser, loop.

    Args:
        files: text files, folders, globs, or - for standard input; the sources of Python's standard library if none.
        tokenizer: characters, bytes, subwords (a byte-level BPE trained on the text), or the path of a tokenizer.json.
        vocab_size: of the subwords; 2048 if None.
        packed: rows of whole documents that do not see each other, instead of windows over all text.
        validation_fraction: of the text's bytes, held out: whole files if there are several.
        accumulate: microbatches that a batch is cut into.
        label_smoothing: share of each target spread over the vocabulary.
        z_loss: coefficient of the squared logsumexp.
        optimizer: AdamW.
        loop: how long, and what how often.
        keep: newest checkpoints that stay, beside the best.
        prompt: for the samples of text; the beginning of the held-out text if None.
        sample_tokens: length of the samples.
        tensorboard: also write TensorBoard files.
    """

    files: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    tokenizer: str = "subwords"
    vocab_size: int | None = None
    packed: bool = False
    validation_fraction: float = 0.1
    accumulate: int = 1
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    optimizer: training.OptimizerConfig = field(default_factory=training.OptimizerConfig)
    loop: training.LoopConfig = field(default_factory=training.LoopConfig)
    keep: int = 3
    prompt: str | None = None
    sample_tokens: int = 120
    tensorboard: bool = False

    def to_json(self) -> dict[str, Any]:
        """For config.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> TrainSettings:
        """From config.json."""
        optimizer, loop = training.OptimizerConfig(**saved["optimizer"]), training.LoopConfig(**saved["loop"])
        return cls(**{**saved, "files": tuple(saved["files"]), "optimizer": optimizer, "loop": loop})


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a language model on text; everything it makes goes into one folder.

    Args:
        out: the run's folder, new or empty; runs/PRESET-DATE-TIME if left out.
        resume: go on with the run in --out from its newest checkpoint; its settings come from the folder.
        preset: the shape to start from; every field can be changed.
        model: changes to the preset.
        settings: text, tokens, optimiser, loop.
    """

    out: Path | None = None
    resume: bool = False
    preset: PresetName = "tiny"
    model: ModelOptions = field(default_factory=ModelOptions)
    settings: TrainSettings = field(default_factory=TrainSettings)

    def run(self) -> None:
        """Train."""
        if not self.resume:
            start(self.settings, self.preset, self.model, self.out)
            return
        if self.out is None:
            raise ValueError("out: expected the folder of the run to resume, got none. Give --out FOLDER.")
        if dataclasses.replace(self, out=None, resume=False) != Train():
            raise ValueError(
                "resume: expected no other option than --out, as all settings come from the folder, got some that "
                "would be ignored. Leave them out, or start a new run without --resume."
            )
        resume(self.out)


def start(settings: TrainSettings, preset: PresetName, options: ModelOptions, out: Path | None = None) -> Path:
    """Train a new model; returns its folder."""
    out = _default_folder(preset) if out is None else out
    run_folder.check_empty(out)
    files = tuple(file if file == "-" else str(Path(file).absolute()) for file in settings.files)
    settings = dataclasses.replace(settings, files=files)
    context = model_config(preset, options, 1).context
    corpus = _corpus(settings, context)
    config = model_config(preset, options, corpus.tokenizer.vocab_size)
    saved = {**settings.to_json(), "corpus": _fingerprint(corpus)}
    run = run_folder.begin(out, config, saved, corpus.tokenizer)
    _describe(run, settings, corpus)
    return _train(run, settings, corpus, resume=False)


def resume(out: Path) -> Path:
    """Go on with the run of a folder from its newest checkpoint, bit for bit."""
    run = run_folder.open_run(out)
    saved = dict(run.settings)
    fingerprint = saved.pop("corpus")
    settings = TrainSettings.from_json(saved)
    corpus = run.corpus()
    if _fingerprint(corpus) != fingerprint:
        raise ValueError(
            f"resume: expected the corpus that the run began with, {fingerprint}, got {_fingerprint(corpus)}. The text "
            f"changed or is gone: {', '.join(settings.files) or 'the standard library of this Python'}."
        )
    return _train(run, settings, corpus, resume=True)


def _train(run: run_folder.Run, settings: TrainSettings, corpus: data.Corpus, resume: bool) -> Path:
    loop, folder = settings.loop, run.folder
    training.keep_freed_memory()
    optimizer = training.make_optimizer(settings.optimizer, steps=loop.steps)
    train_step = training.make_train_step(
        optimizer,
        schedule=training.make_schedule(settings.optimizer, steps=loop.steps),
        accumulate=settings.accumulate,
        label_smoothing=settings.label_smoothing,
        z_loss=settings.z_loss,
    )
    checkpoints = training.Checkpoints(folder / run_folder.CHECKPOINTS, keep=settings.keep)
    state = first_state(run.config, optimizer, loop.seed)
    first = None
    if resume:
        state = checkpoints.restore(like=state)
        first = int(state.step)
        say(f"resuming {folder} at step {first} of {loop.steps}")
    prompt = report.prompt_ids(run, settings.prompt, corpus)
    writers = [training.MetricsFile(folder / run_folder.METRICS, after=first)]
    if settings.tensorboard:
        writers.append(training.TensorBoard(folder / "tensorboard", after=first))
    evaluate = _evaluate(corpus, loop.batch_size)
    show = training.progress(loop.steps)
    try:
        fitted = training.fit(
            state,
            train_step,
            corpus.train,
            loop,
            evaluate=evaluate,
            sample=lambda model: report.sample_text(run, model, prompt, settings.sample_tokens),
            checkpoints=checkpoints,
            writers=writers,
            progress=show,
            meter=_meter(run.config, corpus),
        )
    finally:
        show.close()
        for writer in writers:
            writer.close()
    if fitted.stopped is None:
        model = fitted.state.model
        report.finish(run, model, fitted.evaluation or evaluate(model), corpus, prompt)
    else:
        say(f"continue with: jax-attention train --resume --out {folder}")
    return folder


def first_state(config: models.LMConfig, optimizer: Any, seed: int) -> training.TrainState:
    """The state before the first step: the same for the same config and seed."""
    model_rng, rng = jax.random.split(jax.random.key(seed))
    return training.init_state(models.create(config, model_rng), optimizer, rng=rng)


def _corpus(settings: TrainSettings, length: int) -> data.Corpus:
    return data.prepare(
        settings.files,
        tokenizer=settings.tokenizer,
        vocab_size=settings.vocab_size,
        length=length,
        packed=settings.packed,
        validation_fraction=settings.validation_fraction,
    )


def _evaluate(corpus: data.Corpus, batch_size: int) -> Any:
    """Bits per byte as the corpus counts them, escapes included."""
    inner = training.make_evaluate(corpus.validation, batch_size)

    def evaluate(model: Any) -> dict[str, float]:
        found = inner(model)
        return {"loss": found["loss"], "bits_per_byte": corpus.bits_per_byte(found["loss"]), "tokens": found["tokens"]}

    return evaluate


def _meter(config: models.LMConfig, corpus: data.Corpus) -> training.Meter:
    flops = training.train_flops(
        report.multiplied_parameters(config),
        config.depth,
        config.context,
        config.num_heads * config.resolved_head_size,
    )
    tokens = corpus.validation.predicted
    return training.Meter(flops, training.matmul_peak(config.dtype), corpus.validation_bytes / tokens)


def _fingerprint(corpus: data.Corpus) -> str:
    return f"{corpus.train_bytes} + {corpus.validation_bytes} bytes in {sum(map(len, corpus.names))} documents"


def _describe(run: run_folder.Run, settings: TrainSettings, corpus: data.Corpus) -> None:
    config = run.config
    source = ", ".join(Path(file).name for file in settings.files) or "the sources of Python's standard library"
    say(
        f"text       {source}: {corpus.train_bytes:,} bytes to train on, {corpus.validation_bytes:,} held out "
        f"({len(corpus.names[1])} of {sum(map(len, corpus.names))} documents)"
    )
    say(f"tokens     {settings.tokenizer}, {config.vocab_size} ids")
    say(
        f"model      {report.count_parameters(config):,} parameters: depth {config.depth}, width {config.width}, "
        f"{config.num_heads} heads, context {config.context}, position {config.position}"
    )
    say(
        f"training   {settings.loop.steps} steps of {settings.loop.batch_size} x {config.context} tokens on "
        f"{len(jax.devices())} {jax.devices()[0].platform} device(s)"
    )
    say(f"folder     {run.folder}")


def _default_folder(preset: str) -> Path:
    return Path("runs") / f"{preset}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
