"""The Transformer language model: tokens in, logits out; caches and randomness are arguments and results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention import positions
from jax_attention.cache import EMPTY
from jax_attention.core.checks import check_instance, check_positions, check_tokens, fail_unless
from jax_attention.core.explicit_axes import flatten_rows
from jax_attention.core.numerics import compute_dtype
from jax_attention.core.sizes import exceeds
from jax_attention.models.block import INITIAL_DEVIATION, drop, fold, make_norm, table_rows
from jax_attention.models.config import LMConfig, model_dtype
from jax_attention.models.results import Capture, LMCache, LMOutput, Memory, StackOutput
from jax_attention.models.transformer_stack import StackView, TransformerStack, check_cache
from jax_attention.nn import Linear
from jax_attention.nn.feed_forward import ACTIVATIONS
from jax_attention.nn.listing import unlisted
from jax_attention.nn.short_repr import ShortRepr

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

ADDED_POSITIONS = ("learned", "sinusoidal", "sinusoidal_half")


class TransformerLM(ShortRepr, nnx.Module):
    """A Transformer over the tokens of one sequence or any batch of them.

        logits[..., t, :] = head(norm(blocks(embed(tokens) + position)))_t,        which depends on tokens[..., :t + 1]

    unless `config.mask` lets tokens see the future, as in an encoder.

    The module holds parameters and its config, nothing else: it is a pytree, so `jax.jit`, `grad`, `vmap` and optax
    work on it directly.

    Args:
        config: sizes, layout and the attention rule.
        rngs: random keys, used here and not kept; `models.create(config, rng)` does the same compiled.

    Returns:
        A module: `model(tokens, positions=, segment_ids=, cache=, rng=, capture=)` gives `LMOutput(logits, cache,
        captured)`, in two steps `model.hidden` and `model.unembed`; `model.init_cache` makes an empty cache,
        `model.project_memory(states)` the memory of a decoder; `model.stack` is the part between embedding and head.

    Raises:
        ValueError: by the call, if tokens, positions, segments or capture do not fit; see `__call__`.
        TypeError: by the call, if tokens are not integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import models
        >>> model = models.TransformerLM(models.tiny(vocab_size=11), rngs=nnx.Rngs(0))
        >>> model(jnp.arange(5)).logits.shape, model(jnp.zeros((2, 3, 5), int)).logits.shape
        ((5, 11), (2, 3, 5, 11))

    Reference:
        Vaswani et al. (2017), "Attention is all you need"; Radford et al. (2019), GPT-2.
    """

    def __init__(self, config: LMConfig, *, rngs: nnx.Rngs):
        check_instance("config", config, LMConfig, "models.LMConfig(...)")
        dtype, param_dtype = model_dtype(config), jnp.dtype(config.param_dtype)
        normal = jax.nn.initializers.normal(INITIAL_DEVIATION)

        def make_table(*shape: int) -> nnx.Param:
            return nnx.Param(normal(rngs.params(), shape, param_dtype))

        self.embedding = make_table(config.vocab_size, config.width)
        self.position = make_table(config.context, config.width) if config.position == "learned" else None
        stack = TransformerStack(config, rngs=rngs)
        self.config, self.relative, self.blocks, self.final_norm = (
            config,
            stack.relative,
            stack.blocks,
            stack.final_norm,
        )
        options = dict(kernel_init=normal, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.head = None if config.tied_head else Linear(config.width, config.vocab_size, use_bias=False, **options)
        self.head_bias = nnx.Param(jnp.zeros(config.vocab_size, param_dtype)) if config.head_bias else None
        self.token_type = make_table(config.token_types, config.width) if config.token_types else None
        self.embedding_norm = make_norm(config, rngs) if config.embedding_norm else None
        transforms = config.head_transform
        self.head_transform = Linear(config.width, config.width, **options) if transforms else None
        self.head_norm = make_norm(config, rngs) if transforms else None

    @property
    def stack(self) -> TransformerStack:
        """The model between embedding and head, as a `TransformerStack` that shares its parameters."""
        return StackView(self.config, self.relative, self.blocks, self.final_norm)

    def __call__(
        self,
        tokens: Int[Array, "*batch T"],
        *,
        positions: Int[Array, "*#batch T"] | None = None,
        segment_ids: Int[Array, "*#batch T"] | None = None,
        token_types: Int[Array, "*#batch T"] | None = None,
        cache: LMCache | None = None,
        memory: Memory | None = None,
        rng: PRNGKeyArray | None = None,
        capture: Capture | None = None,
    ) -> LMOutput:
        """Logits of the next token at every position; in a model that sees the future, of the token there.

        tokens: a token outside of the vocabulary gives NaN, because a traced value cannot raise.
        positions: position of each token; 0, 1, 2, … if None, and with a cache those after the last token of each row.
            Padding has position `cache.EMPTY`, and no token attends to it.
        segment_ids: tokens see only tokens of the same segment (packed documents). Not together with a cache.
        token_types: the type of each token (BERT: first or second sentence); 0 if None.
        cache: from `init_cache` or an earlier call. Prefill and decoding are the same call; tokens are appended.
        memory: from `project_memory`, for a model with `memory_size`.
        rng: for dropout; None is no dropout.
        capture: what else to return; does not change the logits. Captured weights are those after dropout.
        """
        x, cache, captured = unlisted(self.read)(
            tokens,
            positions=positions,
            segment_ids=segment_ids,
            token_types=token_types,
            cache=cache,
            memory=memory,
            rng=rng,
            capture=capture,
        )
        return LMOutput(self.unembed(x), cache, captured if capture is not None else None)

    def hidden(
        self, tokens: Int[Array, "*batch T"], **options: Any
    ) -> tuple[Float[Array, "*batch T D"], LMCache | None]:
        """Hidden states before the head, `[..., T, D]`, and the new cache: the same call without the large logits."""
        return unlisted(self.read)(tokens, **options, capture=None)[:2]

    def unembed(self, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Logits of hidden states, in at least float32."""
        config, dtype = self.config, model_dtype(self.config)
        if self.head_transform is not None:
            activation, _ = ACTIVATIONS[config.activation]
            hidden = self.head_norm(activation(self.head_transform(hidden)))
        if config.logit_scale != 1:
            hidden = hidden * jnp.asarray(config.logit_scale, hidden.dtype)
        matrix, axis = (self.embedding, 1) if self.head is None else (self.head.kernel, 0)
        # Not `Linear`: a tied table [V, D] is contracted along its last axis as it is, without a transposed copy.
        rows = flatten_rows(hidden).astype(dtype)
        logits = jax.lax.dot_general(
            rows,
            matrix[...].astype(dtype),
            (((rows.ndim - 1,), (axis,)), ((), ())),
            preferred_element_type=compute_dtype(dtype),
        )
        if self.head_bias is not None:
            logits = logits + _expand_to_rank(self.head_bias[...].astype(logits.dtype), logits.ndim)
        if config.logit_cap is not None:
            logits = config.logit_cap * jnp.tanh(logits / config.logit_cap)
        return logits.reshape(*hidden.shape[:-1], config.vocab_size)

    def read(
        self,
        tokens: Int[Array, "*batch T"],
        *,
        positions: Int[Array, "*#batch T"] | None = None,
        segment_ids: Int[Array, "*#batch T"] | None = None,
        token_types: Int[Array, "*#batch T"] | None = None,
        cache: LMCache | None = None,
        memory: Memory | None = None,
        rng: PRNGKeyArray | None = None,
        capture: Capture | None = None,
    ) -> StackOutput:
        """The whole call except the head: hidden states, the new cache, the captured arrays."""
        tokens = unlisted(self.check_inputs)(tokens, positions, token_types)
        if cache is not None:
            check_cache(cache, self.config, self.blocks, tokens.shape, segment_ids, rng)
            positions = cache.next_positions(tokens.shape[-1]) if positions is None else positions
        if positions is not None:
            positions = check_positions("positions", positions, tokens.shape[-1], tokens.shape[:-1])
        x = drop(self._embed(tokens, positions, token_types), self.config.dropout, fold(rng, 0))
        return self.stack.read(
            x,
            positions=positions,
            segment_ids=segment_ids,
            cache=cache,
            memory=memory,
            rng=fold(rng, 1),
            capture=capture,
        )

    def check_inputs(self, tokens: Any, positions: Any, token_types: Any) -> jax.Array:
        """The tokens as integers of 32 bits or more, checked against the position table and the token types."""
        tokens = check_tokens("tokens", tokens)
        count, rows = tokens.shape[-1], self.config.table_length
        fail_unless(
            self.position is None or positions is not None or not exceeds(count, rows),
            f"tokens: expected at most context = {rows} tokens, the length of the learned position table, got {count}. "
            "Cut the text, or train with a larger context or position='rotary'.",
        )
        fail_unless(
            rows is None or positions is not None or not exceeds(count, rows),
            f"tokens: expected at most {rows} tokens, the rows of the rotary tables, got {count}. Cut the text, or "
            "make longer tables.",
        )
        fail_unless(
            token_types is None or self.token_type is not None,
            "token_types: expected None, as the config has token_types = 0, got an array. Leave it out.",
        )
        if token_types is not None:
            check_positions("token_types", token_types, count, tokens.shape[:-1])
        return tokens

    def project_memory(
        self, states: Float[Array, "*batch S M"], positions: Int[Array, "*#batch S"] | None = None
    ) -> Memory:
        """Keys and values of a source for the cross-attention of every layer: the `memory` of later calls.

        positions: rows at `cache.EMPTY` are padding, which no token attends to; None is no padding.
        """
        return self.stack.project_memory(states, positions)

    def init_cache(
        self,
        batch: tuple[int, ...] = (),
        capacity: int | None = None,
        *,
        dtype: Any = None,
        ring_chunk: int | None = None,
    ) -> LMCache:
        """An empty cache for tokens `[*batch, T]`; options as in `TransformerStack.init_cache`."""
        return self.stack.init_cache(batch, capacity, dtype=dtype, ring_chunk=ring_chunk)

    def with_scan(self, scan: bool) -> TransformerLM:
        """The same model with its blocks stacked for `lax.scan`, or one after the other."""
        copy, stack = jax.tree.map(lambda x: x, self), self.stack.with_scan(scan)
        copy.blocks, copy.config = stack.blocks, stack.config
        return copy

    def shared_mods(self) -> tuple:
        """Mods that all layers share: T5's table of relative positions, if there is one."""
        return self.stack.shared_mods()

    def _embed(self, tokens: jax.Array, token_positions: jax.Array | None, types: Any) -> jax.Array:
        """Embeddings of tokens, token types and added positions, after the embedding norm."""
        config, dtype = self.config, model_dtype(self.config)
        x = table_rows(self.embedding, tokens, dtype)
        if config.scale_embedding:
            x = x * jnp.asarray(config.width**0.5, dtype)
        if self.token_type is not None:
            types = jnp.zeros(tokens.shape[-1:], jnp.int32) if types is None else types
            x = x + _expand_to_rank(table_rows(self.token_type, types, dtype), x.ndim)
        if config.position in ADDED_POSITIONS:
            # EMPTY is outside of the table. No token sees padding, so any row will do, but NaN would alarm debug_nans.
            token_positions = (
                jnp.arange(tokens.shape[-1], dtype=jnp.int32)
                if token_positions is None
                else jnp.where(token_positions == EMPTY, 0, token_positions)
            )
            x = x + _expand_to_rank(self._position_vectors(token_positions, dtype), x.ndim)
        return x if self.embedding_norm is None else self.embedding_norm(x)

    def _position_vectors(self, token_positions: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Vectors that are added to the embeddings at these positions."""
        if self.position is not None:
            return positions.learned(self.position[...], token_positions).astype(dtype)
        style = "half" if self.config.position == "sinusoidal_half" else "interleaved"
        return positions.sinusoidal(token_positions, self.config.width, style=style, dtype=dtype)


def _expand_to_rank(x: jax.Array, rank: int) -> jax.Array:
    """Insert dimensions of size 1 in front; strict rank promotion refuses to do so by itself."""
    return x.reshape((1,) * (rank - x.ndim) + x.shape)
