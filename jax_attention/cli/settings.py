"""What decides the numbers of a run apart from its model: text, tokens, adapters, optimiser, loop."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any

import jax
import optax
import tyro

from jax_attention import models, nn, training
from jax_attention.core.checks import check_int, fail_unless


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What decides the numbers of a run apart from the model: text, tokens, adapters, optimiser, loop.

    Args:
        files: text files, folders, globs, or - for standard input; the sources of Python's standard library if none.
        tokenizer: characters, bytes, subwords (a byte-level BPE trained on the text), or the path of a tokenizer.json;
            subwords if None, with --from that of the folder.
        vocab_size: of the subwords; 2048 if None.
        length: tokens in a row; the model's context if None, with --from at most 1024.
        packed: rows of whole documents that do not see each other, instead of windows over all text.
        validation_fraction: of the text's bytes, held out: whole files if there are several.
        lora: train adapters of this rank beside the model of --from, which stays as it is.
        lora_alpha: their strength; the rank if None.
        lora_targets: a regular expression that finds layers, such as 'projections|feed_forward'; the projections to
            queries, keys and values if None, '' is every linear layer.
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

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """Training uses the largest number of devices that divides the batch."""
        return training.data_mesh(batch_size=self.loop.batch_size)

    def parts(self) -> tuple[optax.GradientTransformation, Any]:
        """The optimiser and the train step; all settings are checked on the way."""
        check_int("sample_tokens", self.sample_tokens, 0, "0 draws no samples.")
        check_int("keep", self.keep, 1, "It is the number of newest checkpoints that stay.")
        check_int("accumulate", self.accumulate, 1, "It is the number of microbatches.")
        fail_unless(
            self.loop.batch_size % self.accumulate == 0,
            f"accumulate: expected a divisor of the batch size {self.loop.batch_size}, got {self.accumulate}.",
        )
        self._check_adapters()
        training.check_divides(self.loop.batch_size, self.mesh)
        steps = self.loop.steps
        optimizer = training.make_optimizer(self.optimizer, steps=steps)
        schedule = training.make_schedule(self.optimizer, steps=steps)
        options = {name: getattr(self, name) for name in ("accumulate", "label_smoothing", "z_loss")}
        return optimizer, training.make_train_step(optimizer, schedule=schedule, **options)

    def adapters(self, model: models.TransformerLM, rng: Any) -> nn.Adapters:
        """Fresh ones for a model."""
        targets = {} if self.lora_targets is None else {"targets": self.lora_targets}
        return nn.lora(model, self.lora, rng, alpha=self.lora_alpha, **targets)

    def _check_adapters(self) -> None:
        if self.lora is not None:
            check_int("lora", self.lora, 1, "It is the rank of the adapters.")
            return
        given = [name for name in ("lora_alpha", "lora_targets") if getattr(self, name) is not None]
        fail_unless(not given, f"{', '.join(given)}: expected only beside a rank, got no --lora. Add --lora 8.")

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
