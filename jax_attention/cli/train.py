"""`jax-attention train`: from text to a trained model in a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import optax
import tyro

from jax_attention import data, models, training
from jax_attention.cli import report, run_folder
from jax_attention.cli.options import ModelOptions, PresetName, model_config
from jax_attention.cli.output import say
from jax_attention.ground.checks import check_int, fail_unless


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
        sample_tokens: length of the samples; 0 draws none.
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
    loop: training.LoopConfig = field(
        default_factory=lambda: training.LoopConfig(evaluate_every=500, checkpoint_every=500)
    )
    keep: int = 3
    prompt: str | None = None
    sample_tokens: int = 120
    tensorboard: bool = False

    def parts(self) -> tuple[optax.GradientTransformation, Any]:
        """The optimiser and the train step; all settings are checked on the way."""
        check_int("sample_tokens", self.sample_tokens, 0, "0 draws no samples.")
        check_int("keep", self.keep, 1, "It is the number of newest checkpoints that stay.")
        check_int("accumulate", self.accumulate, 1, "It is the number of microbatches.")
        fail_unless(
            self.loop.batch_size % self.accumulate == 0,
            f"accumulate: expected a divisor of the batch size {self.loop.batch_size}, got {self.accumulate}.",
        )
        training.check_divides(self.loop.batch_size, training.data_mesh())
        steps = self.loop.steps
        optimizer = training.make_optimizer(self.optimizer, steps=steps)
        schedule = training.make_schedule(self.optimizer, steps=steps)
        options = {name: getattr(self, name) for name in ("accumulate", "label_smoothing", "z_loss")}
        return optimizer, training.make_train_step(optimizer, schedule=schedule, **options)

    def to_json(self) -> dict[str, Any]:
        """For config.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> TrainSettings:
        """From config.json."""
        try:
            optimizer, loop = training.OptimizerConfig(**saved["optimizer"]), training.LoopConfig(**saved["loop"])
            return cls(**{**saved, "files": tuple(saved["files"]), "optimizer": optimizer, "loop": loop})
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"run: expected the settings of this version of jax-attention in its config.json, got {error}. Use "
                "the version that began the run."
            ) from None


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
        training.keep_freed_memory()  # before the first computation
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
    """Train a new model; returns its folder, which is made when everything that can be checked was checked."""
    out = _default_folder(preset) if out is None else out
    run_folder.check_empty(out)
    files = tuple(file if file == "-" else str(Path(file).absolute()) for file in settings.files)
    settings = dataclasses.replace(settings, files=files)
    _check_model(model_config(preset, options, 1), settings)
    settings.parts()
    corpus = data.prepare(
        files,
        tokenizer=settings.tokenizer,
        vocab_size=settings.vocab_size,
        length=model_config(preset, options, 1).context,
        packed=settings.packed,
        validation_fraction=settings.validation_fraction,
    )
    config = model_config(preset, options, corpus.tokenizer.vocab_size)
    report.prompt_ids(corpus, config.context, settings.prompt)
    run = run_folder.begin(out, config, settings.to_json(), corpus)
    _describe(run, settings, corpus)
    return _train(run, settings, corpus, None)


def resume(out: Path) -> Path:
    """Go on with the run of a folder from its newest checkpoint, or from the start if it has none, bit for bit."""
    run = run_folder.open_run(out)
    return _train(run, TrainSettings.from_json(run.settings), run.corpus(), run.checkpoints.latest or 0)


def _train(run: run_folder.Run, settings: TrainSettings, corpus: data.Corpus, resumed: int | None) -> Path:
    optimizer, train_step = settings.parts()
    checkpoints = training.Checkpoints(run.folder / run_folder.CHECKPOINTS, keep=settings.keep)
    state = first_state(run.config, optimizer, settings.loop.seed)
    if resumed is not None:
        say(f"resuming {run.folder} at step {resumed} of {settings.loop.steps}")
        state = checkpoints.restore(like=state) if resumed else state
    prompt = report.prompt_ids(corpus, run.config.context, settings.prompt)
    evaluate, show = _evaluate(corpus, settings.loop.batch_size), training.progress(settings.loop.steps)
    with contextlib.ExitStack() as closing:
        closing.callback(show.close)
        writers: list[Any] = [training.MetricsFile(run.folder / run_folder.METRICS, after=resumed)]
        if settings.tensorboard:
            writers.append(training.TensorBoard(run.folder / "tensorboard", after=resumed))
        for writer in writers:
            closing.callback(writer.close)
        fitted = training.fit(
            state,
            train_step,
            corpus.train,
            settings.loop,
            evaluate=evaluate,
            sample=_sampler(run, settings, prompt),
            checkpoints=checkpoints,
            writers=writers,
            progress=show,
            meter=_meter(run.config, corpus),
        )
    if fitted.stopped is None:
        model = fitted.state.model
        report.finish(run, model, fitted.evaluation or evaluate(model), corpus, prompt)
    else:
        say(f"continue with: jax-attention train --resume --out {run.folder}")
    return run.folder


def _check_model(config: models.LMConfig, settings: TrainSettings) -> None:
    """What would train without a word and be worth nothing, or fail after the last step."""
    if config.sees_future():
        raise ValueError(
            f"mask: expected one that hides the future, got {config.mask!r}: tokens could read the answer. Write "
            "'causal() & ...'."
        )
    for rope in (config.rope, config.local_rope):
        if settings.sample_tokens and config.position == "rotary" and rope is not None and rope.scaling.needs_length:
            raise ValueError(
                f"rope: expected frequencies that do not change with the length, to draw samples with a cache, got "
                f"{rope.scaling!r}. Add --sample-tokens 0."
            )


def _sampler(run: run_folder.Run, settings: TrainSettings, prompt: np.ndarray) -> Any:
    if settings.sample_tokens == 0:
        return None
    return lambda model: report.sample_text(run, model, prompt, settings.sample_tokens)


def first_state(config: models.LMConfig, optimizer: Any, seed: int) -> training.TrainState:
    """The state before the first step: the same for the same config and seed."""
    model_rng, rng = jax.random.split(jax.random.key(seed))
    return training.init_state(models.create(config, model_rng), optimizer, rng=rng)


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
