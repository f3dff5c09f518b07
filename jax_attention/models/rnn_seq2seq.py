"""The recurrent sequence-to-sequence model: a recurrent encoder and decoder, with or without attention."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from flax import nnx

from jax_attention.core.checks import check_instance, fail_unless
from jax_attention.core.sizes import is_at_most
from jax_attention.models.rnn_config import RNNConfig
from jax_attention.models.rnn_encoder_decoder import RNNDecoder, RNNEncoder, RNNMemory
from jax_attention.models.seq2seq_model import Seq2SeqModel

if TYPE_CHECKING:
    from jaxtyping import Array, Int, PRNGKeyArray


class RNNSeq2Seq(Seq2SeqModel):
    """The recurrent encoder–decoder: one code for the whole source, or attention over its states with any score.

        h, C   = encoder(source)
        c_i    = sum_j a_ij h_j,  a_i = normalize(score(s_(i-1), h));      c_i = C without a score
        s_i    = cell([y_(i-1) ; c_i], s_(i-1)),   s_0 = tanh(C W_b + b_b)
        logits = tanh([s_i ; c_i] W_c + b_c) W_o + b_o

    With and without attention the parameters are the same, except those of the score.

    Args:
        config: sizes and the attention rule.
        rngs: random keys, used here and not kept.

    Returns:
        A module: `model(source, target)` gives `LMOutput`, teacher forced; `model.encode(source)` an `RNNMemory`;
        `model.condition(source)` the decoder given that source, a language model for `decoding.generate` and
        `beam_search`.

    Raises:
        ValueError: by the call, if shapes do not fit, or a source is longer than the context of `nn.Location`.
        TypeError: by the call, if tokens are no integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import decoding, models, nn
        >>> config = models.RNNConfig(source_vocab_size=7, vocab_size=11, hidden_size=8, score=nn.Additive)
        >>> model = models.create(config)
        >>> model(jnp.zeros((2, 5), int), jnp.zeros((2, 3), int)).logits.shape
        (2, 3, 11)
        >>> decoding.generate(model.condition(jnp.arange(5)), [0], max_new_tokens=4).tokens.shape
        (4,)

    Reference:
        Cho et al. (2014), "Learning phrase representations"; Bahdanau, Cho, Bengio (2015); Luong, Pham, Manning
        (2015). As in the first, the code enters every step; as in the second, attention with s_(i-1) precedes the step;
        the read-out from `[s_i ; c_i]` is that of the third.
    """

    def __init__(self, config: RNNConfig, *, rngs: nnx.Rngs):
        check_instance("config", config, RNNConfig, "models.RNNConfig(...)")
        self.config = config
        self.encoder, self.decoder = RNNEncoder(config, rngs=rngs), RNNDecoder(config, rngs=rngs)

    def encode(
        self,
        source: Int[Array, "*batch S"],
        *,
        positions: Int[Array, "*#batch S"] | None = None,
        rng: PRNGKeyArray | None = None,
    ) -> RNNMemory:
        """The states of the encoder and its code; padding of the source is at position `cache.EMPTY`."""
        memory = self.encoder(source, positions, rng)
        if not self.config.fixed_length:
            return memory
        count, context = memory.real.shape[-1], self.config.context
        fail_unless(
            is_at_most(count, context),
            f"source: expected at most context = {context} tokens, each of which has parameters of nn.Location, got "
            f"{count}. Make the context larger.",
        )
        padding = [(0, 0)] * (memory.real.ndim - 1) + [(0, context - count)]
        states = jnp.pad(memory.states, [*padding, (0, 0)])
        return dataclasses.replace(memory, states=states, real=jnp.pad(memory.real, padding))

    def encode_memory(self, source: Any, positions: Any = None, rng: Any = None) -> RNNMemory:
        """The decoder's memory of a source: the states of the encoder and its code, as from `encode`."""
        return self.encode(source, positions=positions, rng=rng)

    def padded_length(self, count: int) -> int:
        """The length that `condition` pads a source to; for `nn.Location` that of its parameters."""
        return max(self.config.context, count) if self.config.fixed_length else super().padded_length(count)
