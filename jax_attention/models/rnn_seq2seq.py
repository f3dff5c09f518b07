"""A recurrent encoder that reads a source, and a recurrent decoder that writes a target, attending to it or not."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.ground.buckets import bucket
from jax_attention.ground.checks import check_instance, check_tokens, fail_unless
from jax_attention.models.block import fold
from jax_attention.models.given import Given, check_same_lead, filled_up
from jax_attention.models.results import Capture, LMOutput
from jax_attention.models.rnn_config import RNNConfig
from jax_attention.models.rnn_halves import RNNDecoder, RNNEncoder, RNNMemory

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray


class RNNSeq2Seq(nnx.Module):
    """The recurrent encoder–decoder: a code for the whole source, or attention over its states by any score.

        h, C   = encoder(source)
        c_i    = sum_j a_ij h_j,  a_i = normalize(score(s_(i-1), h));      c_i = C without a score
        s_i    = cell([y_(i-1) ; c_i], s_(i-1)),   s_0 = tanh(C W_b + b_b)
        logits = tanh([s_i ; c_i] W_c + b_c) W_o + b_o

    With and without attention the parameters are the same but those of the score.

    Args:
        config: sizes and the rule.
        rngs: random keys, used here and not kept.

    Returns:
        A module: `model(source, target)` gives `LMOutput`, teacher forced; `model.encode(source)` an `RNNMemory`;
        `model.given(source)` the decoder of that source, which `decoding.generate` and `beam_search` run freely.

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
        >>> decoding.generate(model.given(jnp.arange(5)), [0], max_new_tokens=4).tokens.shape
        (4,)

    Reference:
        Cho et al. (2014), "Learning phrase representations"; Bahdanau, Cho, Bengio (2015); Luong, Pham, Manning
        (2015). Of the first this is the code in every step, of the second the order (look, then step), of the third
        the read-out.
    """

    def __init__(self, config: RNNConfig, *, rngs: nnx.Rngs):
        check_instance("config", config, RNNConfig, "models.RNNConfig(...)")
        self.config = config
        self.encoder, self.decoder = RNNEncoder(config, rngs=rngs), RNNDecoder(config, rngs=rngs)

    def __call__(
        self,
        source: Int[Array, "*lead S"],
        target: Int[Array, "*lead T"],
        *,
        source_positions: Int[Array, "*#lead S"] | None = None,
        target_positions: Int[Array, "*#lead T"] | None = None,
        rng: PRNGKeyArray | None = None,
        capture: Capture | None = None,
    ) -> LMOutput:
        """Logits `[..., T, V]` of the token behind each of the target; `Capture(cross="all")` gives the maps."""
        memory, options = self._read(source, target, source_positions, target_positions, rng)
        return self.decoder(target, memory=memory, capture=capture, **options)

    def hidden(
        self,
        source: Int[Array, "*lead S"],
        target: Int[Array, "*lead T"],
        *,
        source_positions: Int[Array, "*#lead S"] | None = None,
        target_positions: Int[Array, "*#lead T"] | None = None,
        rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "*lead T H"]:
        """What the head sees: the same call without the logits, which are large."""
        memory, options = self._read(source, target, source_positions, target_positions, rng)
        return self.decoder.hidden(target, memory=memory, **options)[0]

    def unembed(self, hidden: Float[Array, "*lead H"]) -> Float[Array, "*lead V"]:
        """Logits of hidden states."""
        return self.decoder.unembed(hidden)

    def encode(
        self,
        source: Int[Array, "*lead S"],
        *,
        positions: Int[Array, "*#lead S"] | None = None,
        rng: PRNGKeyArray | None = None,
    ) -> RNNMemory:
        """What the encoder makes of a source; padding stands at `cache.EMPTY`."""
        memory = self.encoder(source, positions, rng)
        if not self.config.fixed_length:
            return memory
        count, context = memory.real.shape[-1], self.config.context
        fail_unless(
            count <= context,
            f"source: expected at most context = {context} tokens, each of which has parameters of nn.Location, got "
            f"{count}. Make the context larger.",
        )
        behind = [(0, 0)] * (memory.real.ndim - 1) + [(0, context - count)]
        states = jnp.pad(memory.states, [*behind, (0, 0)])
        return dataclasses.replace(memory, states=states, real=jnp.pad(memory.real, behind))

    def given(self, source: Int[Array, "*lead S"], *, positions: Int[Array, "*#lead S"] | None = None) -> Given:
        """The decoder of one source, or of a batch of them: a language model of the target.

        Compiled; nearby lengths run one program, as they are filled up (16, 32, 64, 128, 256, …).
        """
        source = check_tokens("source", source)
        size = max(self.config.context, source.shape[-1]) if self.config.fixed_length else bucket(source.shape[-1])
        return Given(self.decoder, _remembered(self, *filled_up(source, positions, size)))

    def _read(
        self, source: Any, target: Any, source_positions: Any, target_positions: Any, rng: jax.Array | None
    ) -> tuple[RNNMemory, dict[str, Any]]:
        check_same_lead(source, target)
        memory = self.encode(source, positions=source_positions, rng=fold(rng, 0))
        return memory, {"positions": target_positions, "rng": fold(rng, 1)}


@jax.jit
def _remembered(model: RNNSeq2Seq, source: jax.Array, places: jax.Array) -> RNNMemory:
    return model.encode(source, positions=places)
