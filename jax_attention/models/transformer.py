"""The Transformer language model: tokens in, logits out, everything else an argument and a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention import positions
from jax_attention.cache import EMPTY
from jax_attention.core.checks import check_instance, check_positions, check_tokens, fail_unless
from jax_attention.core.numerics import compute_dtype
from jax_attention.models.block import INITIAL_DEVIATION, drop, fold, make_norm, table_rows
from jax_attention.models.config import LMConfig, model_dtype
from jax_attention.models.results import Capture, LMCache, LMOutput, Memory, StackOutput
from jax_attention.models.transformer_stack import TransformerStack
from jax_attention.nn import Linear
from jax_attention.nn.feed_forward import ACTIVATIONS

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray


class TransformerLM(TransformerStack):
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
        captured)`; `model.hidden` and `model.unembed` are its two halves; `model.init_cache` makes an empty cache,
        `model.project_memory(states)` the memory of a decoder.

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
        table = lambda *shape: nnx.Param(normal(rngs.params(), shape, param_dtype))  # noqa: E731
        self.embedding = table(config.vocab_size, config.width)
        self.position = table(config.context, config.width) if config.position == "learned" else None
        super().__init__(config, rngs=rngs)
        options = dict(kernel_init=normal, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.head = None if config.tied_head else Linear(config.width, config.vocab_size, use_bias=False, **options)
        self.head_bias = nnx.Param(jnp.zeros(config.vocab_size, param_dtype)) if config.head_bias else None
        self.token_type = table(config.token_types, config.width) if config.token_types else None
        self.embedding_norm = make_norm(config, rngs) if config.embedding_norm else None
        transforms = config.head_transform
        self.head_transform = Linear(config.width, config.width, **options) if transforms else None
        self.head_norm = make_norm(config, rngs) if transforms else None

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
        """Logits of the next token at every place; of a model that sees the future, of this token.

        tokens: outside of the vocabulary they give NaN: a traced value cannot raise.
        positions: where each token stands; 0, 1, 2, … if None, and with a cache behind the last token of each row.
            Padding stands at `cache.EMPTY` and is seen by nobody.
        segment_ids: tokens see only tokens of the same segment (packed documents). Not together with a cache.
        token_types: the kind of each token (BERT: first or second sentence); 0 if None.
        cache: from `init_cache` or an earlier call. Prefill and decoding are the same call; tokens are appended.
        memory: from `remember`, of a model with `memory_size`.
        rng: for dropout; None is no dropout.
        capture: what else to return; does not change the logits. Under dropout, weights are those after it.
        """
        x, cache, captured = self.read(
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

    def hidden(self, tokens: Int[Array, "*batch T"], **options: Any) -> tuple[Float[Array, "*batch T D"], LMCache | None]:
        """What the head sees, `[..., T, D]`, and the new cache: the same call without the logits, which are large."""
        return self.read(tokens, **options, capture=None)[:2]

    def unembed(self, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Logits of hidden states, in at least float32."""
        config, dtype = self.config, model_dtype(self.config)
        if self.head_transform is not None:
            bend, _ = ACTIVATIONS[config.activation]
            hidden = self.head_norm(bend(self.head_transform(hidden)))
        if config.logit_scale != 1:
            hidden = hidden * jnp.asarray(config.logit_scale, hidden.dtype)
        matrix, axis = (self.embedding, 1) if self.head is None else (self.head.kernel, 0)
        logits = jax.lax.dot_general(
            hidden.reshape(-1, config.width).astype(dtype),
            matrix[...].astype(dtype),
            (((1,), (axis,)), ((), ())),
            preferred_element_type=compute_dtype(dtype),
        )
        logits = logits if self.head_bias is None else logits + self.head_bias[...].astype(logits.dtype)
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
        """The whole call but the head: what the head sees, the new cache, what was captured."""
        tokens = self._checked(tokens, positions, token_types)
        if cache is not None:
            self._check_cache(cache, tokens.shape, segment_ids, rng)
            positions = cache.next_positions(tokens.shape[-1]) if positions is None else positions
        positions = None if positions is None else check_positions("positions", positions, *sizes_of(tokens))
        x = drop(self._embed(tokens, positions, token_types), self.config.dropout, fold(rng, 0))
        return super().__call__(
            x,
            positions=positions,
            segment_ids=segment_ids,
            cache=cache,
            memory=memory,
            rng=fold(rng, 1),
            capture=capture,
        )

    def _embed(self, tokens: jax.Array, places: jax.Array | None, types: Any) -> jax.Array:
        config, dtype = self.config, model_dtype(self.config)
        x = table_rows(self.embedding, tokens, dtype)
        if config.scale_embedding:
            x = x * jnp.asarray(config.width**0.5, dtype)
        if self.token_type is not None:
            y = table_rows(self.token_type, jnp.zeros(tokens.shape[-1:], jnp.int32) if types is None else types, dtype)
            x = x + _beside(y, x)
        if config.position in ("learned", "sinusoidal", "sinusoidal_half"):
            # Padding stands far outside of the table: any row will do, as nobody sees it, but NaN alarms debug_nans.
            places = jnp.arange(tokens.shape[-1]) if places is None else jnp.where(places == EMPTY, 0, places)
            x = x + _beside(self._placed(places, dtype), x)
        return x if self.embedding_norm is None else self.embedding_norm(x)

    def _placed(self, places: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """What is added to embeddings at these positions."""
        if self.position is not None:
            return positions.learned(self.position[...], places).astype(dtype)
        style = "half" if self.config.position == "sinusoidal_half" else "interleaved"
        return positions.sinusoidal(places, self.config.width, style=style, dtype=dtype)

    def _checked(self, tokens: Any, positions: Any, token_types: Any) -> jax.Array:
        tokens = check_tokens("tokens", tokens)
        count = tokens.shape[-1]
        fail_unless(
            self.position is None or positions is not None or count <= self.config.context,
            f"tokens: expected at most context = {self.config.context} tokens, the length of the learned position "
            f"table, got {count}. Cut the text, or train with a larger context or position='rotary'.",
        )
        fail_unless(
            token_types is None or self.token_type is not None,
            "token_types: expected None, as the config has token_types = 0, got an array. Leave it out.",
        )
        if token_types is not None:
            check_positions("token_types", token_types, *sizes_of(tokens))
        return tokens


def sizes_of(tokens: jax.Array) -> tuple[int, tuple[int, ...]]:
    """T and the leading axes."""
    return tokens.shape[-1], tokens.shape[:-1]


def _beside(y: jax.Array, x: jax.Array) -> jax.Array:
    """With leading axes of size 1 up to those of x."""
    return y.reshape((1,) * (x.ndim - y.ndim) + y.shape)
