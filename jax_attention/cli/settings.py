"""Settings of a training run: text, tokens, adapters, optimiser, loop."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any

import jax
import optax
import tyro

from jax_attention import models, nn, training
from jax_attention.cli.layer_pattern import check_pattern
from jax_attention.core.checks import check_int, fail_unless
from jax_attention.core.text import quote
from jax_attention.core.tree_paths import arrays_by_path


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything that determines the numbers of a run, except the model.

    Args:
        files: text files, folders or globs, or - for standard input; the sources of Python's standard library if none.
        tokenizer: characters, bytes, subwords (a byte-level BPE trained on the text), or the path of a tokenizer.json;
            subwords if None, or with --from the tokenizer of the folder.
        vocab_size: number of subwords; 2048 if None.
        length: tokens per row; the model's context if None, with --from at most 1024.
        packed: fill rows with whole documents that do not attend to each other, instead of windows over all text.
        validation_fraction: fraction of the text's bytes to hold out; whole files if there are several.
        lora: rank of the adapters to train; the model of --from itself stays unchanged.
        lora_alpha: strength of the adapters; the rank if None.
        lora_targets: regular expression for the names of layers, such as 'projections|feed_forward'; the projections to
            queries, keys and values if None; '' is every linear layer.
        accumulate: number of microbatches per batch.
        label_smoothing: share of each target that is spread over the vocabulary.
        z_loss: coefficient of the squared logsumexp.
        optimizer: settings of AdamW.
        loop: number of steps, and how often to evaluate and save.
        keep: number of newest checkpoints to keep, in addition to the best.
        prompt: prompt of the sample texts; the beginning of the validation text if None.
        sample_tokens: tokens per sample text; 0 generates none.
        tensorboard: also write TensorBoard files.
        devices: largest number of devices to use; all if None. Of these, the most that divide the batch are used.
    """

    files: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    tokenizer: str | None = None
    vocab_size: int | None = None
    length: int | None = None
    packed: bool = False
    validation_fraction: float = 0.1
    lora: int | None = None
    lora_alpha: float | None = None
    lora_targets: str | None = None
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
    devices: int | None = None

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """Mesh over the largest number of devices that divides the batch size, at most `devices` of them.

        A run that is resumed on a machine with fewer devices uses those.
        """
        return training.data_mesh(jax.devices()[: self.devices], batch_size=self.loop.batch_size)

    def devices_text(self) -> str:
        """Number of devices that training uses, and the reason if it is not all."""
        used, count, platform = self.mesh.size, len(jax.devices()), jax.devices()[0].platform
        if used == count:
            return f"{used} {platform} device{'' if used == 1 else 's'}"
        limit = "" if self.devices is None else f" up to --devices {self.devices}"
        rows = self.loop.batch_size
        return f"{used} of {count} {platform} devices, the largest number{limit} that divides a batch of {rows} rows"

    @property
    def schedule(self) -> optax.Schedule:
        """Learning rate by step."""
        return training.make_schedule(self.optimizer, steps=self.loop.steps)

    def parts(self) -> tuple[optax.GradientTransformation, Any]:
        """Check all settings; return the optimiser and the train step."""
        check_int("sample_tokens", self.sample_tokens, 0, "0 draws no samples.")
        check_int("keep", self.keep, 1, "It is the number of newest checkpoints to keep.")
        check_int("accumulate", self.accumulate, 1, "It is the number of microbatches.")
        fail_unless(
            self.loop.batch_size % self.accumulate == 0,
            f"accumulate: expected a divisor of the batch size {self.loop.batch_size}, got {self.accumulate}.",
        )
        if self.devices is not None:
            check_int("devices", self.devices, 1, "It is the number of devices to use.")
        self._check_adapters()
        training.check_divides(self.loop.batch_size, self.mesh)
        optimizer = training.make_optimizer(self.optimizer, steps=self.loop.steps)
        options = {name: getattr(self, name) for name in ("accumulate", "label_smoothing", "z_loss")}
        return optimizer, training.make_train_step(optimizer, schedule=self.schedule, **options)

    def adapters(self, model: models.TransformerLM, rng: Any) -> nn.Adapters:
        """Initial adapters for a model."""
        if self.lora_targets is not None:
            check_pattern(self.lora_targets, tuple(path.rpartition(".")[0] for path in arrays_by_path(model)))
        targets = {} if self.lora_targets is None else {"targets": self.lora_targets}
        return nn.lora(model, self.lora, rng, alpha=self.lora_alpha, **targets)

    def _check_adapters(self) -> None:
        if self.lora is not None:
            check_int("lora", self.lora, 1, "It is the rank of the adapters.")
            return
        ignored = [name for name in ("lora_alpha", "lora_targets") if getattr(self, name) is not None]
        fail_unless(not ignored, f"{', '.join(ignored)}: expected only with a rank, got no --lora. Add --lora 8.")

    def to_json(self) -> dict[str, Any]:
        """The settings as the dictionary that config.json holds."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> TrainSettings:
        """The settings from the dictionary that config.json holds, which may come from elsewhere."""
        try:
            optimizer = _from_json(training.OptimizerConfig, saved["optimizer"])
            loop = _from_json(training.LoopConfig, saved["loop"])
            return _from_json(cls, {**saved, "files": tuple(saved["files"]), "optimizer": optimizer, "loop": loop})
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"run: expected the settings of this version of jax-attention in its config.json, got {error}. Use "
                "the version that started the run."
            ) from None


def _from_json(cls: type, saved: dict[str, Any]) -> Any:
    """A dataclass from its fields, each of the type that its annotation says."""
    hints = typing.get_type_hints(cls)
    for name, x in saved.items():
        if name in hints and not _fits(x, hints[name]):
            raise TypeError(f"{name} = {quote(x)}")
    return cls(**saved)


def _fits(x: Any, kind: Any) -> bool:
    """Whether a value is of a type of the settings: a class, a choice of texts, a tuple of texts, or one of several."""
    if typing.get_origin(kind) is typing.Literal:
        return x in typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return isinstance(x, tuple) and all(isinstance(item, str) for item in x)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_fits(x, one) for one in typing.get_args(kind))
    if kind in (int, float):
        return isinstance(x, (int, kind)) and not isinstance(x, bool)
    return isinstance(x, kind)
