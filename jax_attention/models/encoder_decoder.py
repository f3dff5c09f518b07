"""An encoder that reads a source and a decoder that writes a target, looking at what was read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from jax_attention.core.checks import check_instance, fail_unless
from jax_attention.models.config import LMConfig
from jax_attention.models.results import Memory
from jax_attention.models.seq2seq_model import ConditionedDecoder, Seq2SeqModel
from jax_attention.models.transformer import TransformerLM

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

HEADLESS = {"tied_head": True, "head_transform": False, "head_bias": False}
"""An encoder has no head."""


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """What an encoder–decoder Transformer is: the configs of its halves.

        p(target | source) = decoder(target, memory = encoder(source))

    Args:
        encoder: usually with `mask=None`; its head is not looked at.
        decoder: with `memory_size` = the encoder's width.
        shared_embedding: the encoder embeds tokens by the decoder's table.

    Returns:
        A config; `models.create(config)` makes the model.

    Raises:
        ValueError: if the halves do not fit together, naming the field.
        TypeError: if a half is not an `LMConfig`.

    Example:
        >>> from jax_attention import models
        >>> encoder = models.LMConfig(vocab_size=11, width=8, depth=1, num_heads=2, mask=None)
        >>> decoder = models.LMConfig(vocab_size=11, width=8, depth=1, num_heads=2, memory_size=8)
        >>> models.EncoderDecoderConfig(encoder=encoder, decoder=decoder, shared_embedding=True).scan
        False

    Reference:
        Vaswani et al. (2017), "Attention is all you need", figure 1.
    """

    encoder: LMConfig
    decoder: LMConfig
    shared_embedding: bool = False

    def __post_init__(self) -> None:
        for name in ("encoder", "decoder"):
            half = getattr(self, name)
            fail_unless(isinstance(half, LMConfig), f"{name}: expected models.LMConfig(...), got {half!r}.", TypeError)
        object.__setattr__(self, "encoder", dataclasses.replace(self.encoder, **HEADLESS))
        size = self.decoder.memory_size
        fail_unless(
            size == self.encoder.width,
            f"decoder: expected memory_size = {self.encoder.width}, the width of the encoder, got {size}.",
        )
        fail_unless(
            self.encoder.memory_size is None,
            f"encoder: expected memory_size None, as it reads nothing but tokens, got {self.encoder.memory_size}.",
        )
        check_instance("shared_embedding", self.shared_embedding, bool, "True or False")
        for name in ("scan", "param_dtype"):
            values = [getattr(half, name) for half in (self.encoder, self.decoder)]
            fail_unless(
                values[0] == values[1],
                f"{name}: expected the same in both halves, got {values[0]!r} and {values[1]!r}. Set both: "
                f"config.replace({name}=...).",
            )
        table = lambda half: (half.vocab_size, half.width)  # noqa: E731
        fail_unless(
            not self.shared_embedding or table(self.encoder) == table(self.decoder),
            f"shared_embedding: expected equal [vocab_size, width] in both halves, got {table(self.encoder)} and "
            f"{table(self.decoder)}. Give each its own table: shared_embedding=False.",
        )

    def replace(self, **changes: Any) -> EncoderDecoderConfig:
        """The same with some fields of both halves changed: `scan`, `dtype`, `remat`, …"""
        halves = {name: dataclasses.replace(getattr(self, name), **changes) for name in ("encoder", "decoder")}
        return dataclasses.replace(self, **halves)

    @property
    def scan(self) -> bool:
        """Whether blocks are stacked."""
        return self.decoder.scan

    @property
    def param_dtype(self) -> str:
        """The dtype of the parameters."""
        return self.decoder.param_dtype


class EncoderDecoder(Seq2SeqModel):
    """An encoder and a decoder, each a `TransformerLM`.

        logits[..., t, :] = decoder(target, memory = encoder(source))_t,      which depends on target[..., :t + 1]

    Args:
        config: both halves.
        rngs: random keys, used here and not kept.

    Returns:
        A module: `model(source, target)` gives `LMOutput`; `model.encode(source)` what the encoder makes of a source,
        `[..., S, D]`; `model.condition(source)` the decoder of that source, which `decoding.generate` takes as a model.

    Raises:
        ValueError: by the call, if tokens or positions do not fit.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax_attention import decoding, models
        >>> encoder = models.LMConfig(vocab_size=11, width=8, depth=1, num_heads=2, mask=None)
        >>> decoder = models.LMConfig(vocab_size=11, width=8, depth=1, num_heads=2, memory_size=8)
        >>> model = models.create(models.EncoderDecoderConfig(encoder=encoder, decoder=decoder))
        >>> model(jnp.zeros((2, 5), int), jnp.zeros((2, 3), int)).logits.shape
        (2, 3, 11)
        >>> decoding.generate(model.condition(jnp.arange(5)), [0], max_new_tokens=4).tokens.shape
        (4,)

    Reference:
        Sutskever, Vinyals, Le (2014), "Sequence to sequence learning"; Vaswani et al. (2017).
    """

    def __init__(self, config: EncoderDecoderConfig, *, rngs: nnx.Rngs):
        check_instance("config", config, EncoderDecoderConfig, "models.EncoderDecoderConfig(...)")
        encoder = TransformerLM(config.encoder, rngs=rngs)
        if config.shared_embedding:
            encoder.embedding = None
        self.encoder, self.decoder, self.config = encoder, TransformerLM(config.decoder, rngs=rngs), config

    def encode(
        self,
        source: Int[Array, "*batch S"],
        *,
        positions: Int[Array, "*#batch S"] | None = None,
        rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "*batch S D"]:
        """What the encoder makes of a source."""
        encoder = self.encoder
        if self.config.shared_embedding:
            encoder = jax.tree.map(lambda x: x, encoder)
            encoder.embedding = self.decoder.embedding
        return encoder.hidden(source, positions=positions, rng=rng)[0]

    def encode_memory(self, source: Any, positions: Any = None, rng: Any = None) -> Memory:
        """Keys and values of what the encoder makes of a source, for each layer of the decoder."""
        return self.decoder.project_memory(self.encode(source, positions=positions, rng=rng), positions)

    def condition(
        self, source: Int[Array, "*batch S"], *, positions: Int[Array, "*#batch S"] | None = None
    ) -> ConditionedDecoder:
        """As of every model of a source; the blocks of the decoder are unrolled, which is faster token by token."""
        self.encoder._checked(source, positions, None)
        model = self
        if self.config.scan:
            model = jax.tree.map(lambda x: x, self)
            model.decoder = self.decoder.with_scan(False)
        return super(EncoderDecoder, model).condition(source, positions=positions)

    def with_scan(self, scan: bool) -> EncoderDecoder:
        """Both halves with their blocks stacked for `lax.scan`, or one after the other."""
        copy = jax.tree.map(lambda x: x, self)
        copy.encoder, copy.decoder = self.encoder.with_scan(scan), self.decoder.with_scan(scan)
        copy.config = self.config.replace(scan=scan)
        return copy
