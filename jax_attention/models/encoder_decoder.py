"""The encoder–decoder Transformer: an encoder reads a source, a decoder with cross-attention writes a target."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from jax_attention.core.checks import check_instance, fail_unless
from jax_attention.core.short_repr import short_repr
from jax_attention.models.config import LMConfig
from jax_attention.models.results import Memory
from jax_attention.models.seq2seq_model import ConditionedDecoder, Seq2SeqModel
from jax_attention.models.transformer import TransformerLM
from jax_attention.nn.listing import unlisted

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

NO_HEAD = {"tied_head": True, "head_transform": False, "head_bias": False}
"""Fields of a config without a head of its own; an encoder never calls `unembed`."""


@short_repr
@dataclass(frozen=True, kw_only=True, repr=False)
class EncoderDecoderConfig:
    """The configs of encoder and decoder of an `EncoderDecoder`.

        p(target | source) = decoder(target, memory = encoder(source))

    Args:
        encoder: config of the encoder, usually with `mask=None`; its head is ignored.
        decoder: config of the decoder, with `memory_size` = the encoder's width.
        shared_embedding: whether the encoder uses the decoder's embedding table.

    Returns:
        A config; `models.create(config)` makes the model.

    Raises:
        ValueError: if the two configs do not fit together, naming the field.
        TypeError: if one of them is not an `LMConfig`.

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
            config = getattr(self, name)
            fail_unless(
                isinstance(config, LMConfig), f"{name}: expected models.LMConfig(...), got {config!r}.", TypeError
            )
        object.__setattr__(self, "encoder", dataclasses.replace(self.encoder, **NO_HEAD))
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
            first, second = getattr(self.encoder, name), getattr(self.decoder, name)
            fail_unless(
                first == second,
                f"{name}: expected the same in encoder and decoder, got {first!r} and {second!r}. Set both: "
                f"config.replace({name}=...).",
            )
        shapes = [(config.vocab_size, config.width) for config in (self.encoder, self.decoder)]
        fail_unless(
            not self.shared_embedding or shapes[0] == shapes[1],
            f"shared_embedding: expected equal [vocab_size, width] in encoder and decoder, got {shapes[0]} and "
            f"{shapes[1]}. Use two tables: shared_embedding=False.",
        )

    def replace(self, **changes: Any) -> EncoderDecoderConfig:
        """A config with some fields of encoder and decoder changed: `scan`, `dtype`, `remat`, …"""
        configs = {name: dataclasses.replace(getattr(self, name), **changes) for name in ("encoder", "decoder")}
        return dataclasses.replace(self, **configs)

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
        config: configs of encoder and decoder.
        rngs: random keys, used here and not kept.

    Returns:
        A module: `model(source, target)` gives `LMOutput`; `model.encode(source)` the encoder's hidden states
        `[..., S, D]`; `model.condition(source)` the decoder given that source, a language model for
        `decoding.generate`.

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
        """Hidden states of the encoder, `[..., S, D]`; padding of the source is at position `cache.EMPTY`."""
        encoder = self.encoder
        if self.config.shared_embedding:
            encoder = jax.tree.map(lambda x: x, encoder)
            encoder.embedding = self.decoder.embedding
        return encoder.hidden(source, positions=positions, rng=rng)[0]

    def encode_memory(self, source: Any, positions: Any = None, rng: Any = None) -> Memory:
        """Keys and values of the encoder's hidden states, for the cross-attention of each layer of the decoder."""
        project = unlisted(self.decoder.project_memory)
        return project(self.encode(source, positions=positions, rng=rng), positions)

    def condition(
        self, source: Int[Array, "*batch S"], *, positions: Int[Array, "*#batch S"] | None = None
    ) -> ConditionedDecoder:
        """The decoder given this source, as in `Seq2SeqModel`; unrolled, because that decodes faster."""
        self.encoder.check_inputs(source, positions, None)
        model = self
        if self.config.scan:
            model = jax.tree.map(lambda x: x, self)
            model.decoder = self.decoder.with_scan(False)
        return Seq2SeqModel.condition(model, source, positions=positions)

    def with_scan(self, scan: bool) -> EncoderDecoder:
        """The same model with the blocks of encoder and decoder stacked for `lax.scan`, or one after the other."""
        copy = jax.tree.map(lambda x: x, self)
        copy.encoder, copy.decoder = self.encoder.with_scan(scan), self.decoder.with_scan(scan)
        copy.config = self.config.replace(scan=scan)
        return copy
