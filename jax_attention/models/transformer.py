"""The Transformer language model: tokens in, logits out, everything else an argument and a result."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention import masks, mods, positions
from jax_attention.cache import EMPTY, filled
from jax_attention.ground.checks import check_int, check_positions, describe_array, fail_unless
from jax_attention.models.block import INITIAL_DEVIATION, Shared, drop, make_norm
from jax_attention.models.config import T5_BUCKETS, LMConfig, model_dtype
from jax_attention.models.results import Capture, Captured, LMCache, LMOutput
from jax_attention.models.stack import make_cache, make_stack, restack
from jax_attention.nn import Linear

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray


class TransformerLM(nnx.Module):
    """A decoder-only Transformer over one sequence or any batch of them.

        logits[..., t, :] = head(norm(blocks(embed(tokens) + position)))_t,        which depends on tokens[..., :t + 1]

    The module holds parameters and its config, nothing else: it is a pytree, so `jax.jit`, `grad`, `vmap` and optax
    work on it directly.

    Args:
        config: sizes, layout and the attention rule.
        rngs: random keys, used here and not kept; `models.create(config, rng)` does the same compiled.

    Returns:
        A module: `model(tokens, positions=, segment_ids=, cache=, rng=, capture=)` gives `LMOutput(logits, cache,
        captured)`; `model.hidden` and `model.unembed` are its two halves; `model.init_cache` makes an empty cache.

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
        dtype, param_dtype = model_dtype(config), jnp.dtype(config.param_dtype)
        normal = jax.nn.initializers.normal(INITIAL_DEVIATION)
        table = lambda *shape: nnx.Param(normal(rngs.params(), shape, param_dtype))  # noqa: E731
        self.embedding = table(config.vocab_size, config.width)
        self.position = table(config.context, config.width) if config.position == "learned" else None
        self.relative = table(config.num_heads, T5_BUCKETS) if config.position == "t5" else None
        self.blocks = make_stack(config, rngs.params())
        self.final_norm = None if config.norm_place == "post" else make_norm(config, rngs)
        options = dict(use_bias=False, kernel_init=normal, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.head = None if config.tied_head else Linear(config.width, config.vocab_size, **options)
        self.config = config

    def __call__(
        self,
        tokens: Int[Array, "*lead T"],
        *,
        positions: Int[Array, "*#lead T"] | None = None,
        segment_ids: Int[Array, "*#lead T"] | None = None,
        cache: LMCache | None = None,
        rng: PRNGKeyArray | None = None,
        capture: Capture | None = None,
    ) -> LMOutput:
        """Logits of the next token at every place.

        tokens: outside of the vocabulary they give NaN: a traced value cannot raise.
        positions: where each token stands; 0, 1, 2, … if None, and with a cache behind the last token of each row.
            Padding stands at `cache.EMPTY` and is seen by nobody.
        segment_ids: tokens see only tokens of the same segment (packed documents). Not together with a cache.
        cache: from `init_cache` or an earlier call. Prefill and decoding are the same call; tokens are appended.
        rng: for dropout; None is no dropout.
        capture: what else to return; does not change the logits. Under dropout, weights are those after it.
        """
        x, cache, captured = self._run(tokens, positions, segment_ids, cache, rng, capture)
        return LMOutput(self.unembed(x), cache, captured if capture is not None else None)

    def hidden(
        self,
        tokens: Int[Array, "*lead T"],
        *,
        positions: Int[Array, "*#lead T"] | None = None,
        segment_ids: Int[Array, "*#lead T"] | None = None,
        cache: LMCache | None = None,
        rng: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "*lead T D"], LMCache | None]:
        """What the head sees, `[..., T, D]`, and the new cache: the same call without the logits, which are large."""
        return self._run(tokens, positions, segment_ids, cache, rng, None)[:2]

    def unembed(self, hidden: Float[Array, "*lead D"]) -> Float[Array, "*lead V"]:
        """Logits of hidden states, in at least float32."""
        config, dtype = self.config, model_dtype(self.config)
        matrix, axis = (self.embedding, 1) if self.head is None else (self.head.kernel, 0)
        logits = jax.lax.dot_general(
            hidden.reshape(-1, config.width).astype(dtype),
            matrix[...].astype(dtype),
            (((1,), (axis,)), ((), ())),
            preferred_element_type=jnp.promote_types(dtype, jnp.float32),
        )
        if config.logit_cap is not None:
            logits = config.logit_cap * jnp.tanh(logits / config.logit_cap)
        return logits.reshape(*hidden.shape[:-1], config.vocab_size)

    def init_cache(
        self,
        batch: tuple[int, ...] = (),
        capacity: int | None = None,
        *,
        dtype: Any = None,
        ring_chunk: int | None = None,
    ) -> LMCache:
        """An empty cache for sequences `[*batch, T]`.

        capacity: rows it can hold; the config's context if None.
        dtype: of keys and values; the config's dtype if None.
        ring_chunk: layers with a window keep only `window + ring_chunk - 1` rows, in a ring; then at most `ring_chunk`
            tokens may be given at once.
        """
        capacity = self.config.context if capacity is None else check_int("capacity", capacity, 1, "It is static.")
        if ring_chunk is not None:
            check_int("ring_chunk", ring_chunk, 1, "It is the largest number of tokens appended at once.")
        return make_cache(
            self.config, batch, capacity, model_dtype(self.config) if dtype is None else dtype, ring_chunk
        )

    def _run(
        self, tokens: Any, positions: Any, segment_ids: Any, cache: LMCache | None, rng: Any, capture: Capture | None
    ) -> tuple[jax.Array, LMCache | None, Captured]:
        tokens, capture = self._checked(tokens, positions, segment_ids), _checked_capture(capture)
        if cache is not None:
            self._check_cache(cache, tokens, segment_ids, rng)
            positions = cache.next_positions(tokens.shape[-1]) if positions is None else positions
        positions = None if positions is None else jnp.asarray(positions, jnp.int32)
        # A causal mask hides padding by itself; not every mask does. With a cache the layers do the same.
        mask = filled() if positions is not None and cache is None else None
        if segment_ids is not None:
            own = masks.segments(jnp.broadcast_to(segment_ids, tokens.shape)[..., None, :])
            mask = own if mask is None else own & mask
        relative = () if self.relative is None else (mods.relative(self.relative[...], bidirectional=False),)
        x = drop(self._embed(tokens, positions), self.config.dropout, _fold(rng, 0))
        shared = Shared(positions, mask, relative)
        x, cache, captured = self.blocks(x, shared, cache, _fold(rng, 1), capture, self.config.remat)
        return (x if self.final_norm is None else self.final_norm(x)), cache, captured

    def _embed(self, tokens: jax.Array, places: jax.Array | None) -> jax.Array:
        config, dtype = self.config, model_dtype(self.config)
        # Negative tokens do not count from the end: like those beyond the vocabulary they become NaN.
        inside = jnp.where(tokens < 0, config.vocab_size, tokens)
        x = jnp.take(self.embedding[...].astype(dtype), inside, axis=0, mode="fill")
        if config.scale_embedding:
            x = x * jnp.asarray(config.width**0.5, dtype)
        if config.position not in ("learned", "sinusoidal"):
            return x
        # Padding stands far outside of the table: any row will do, as nobody sees it, but NaN would alarm debug_nans.
        places = jnp.arange(tokens.shape[-1]) if places is None else jnp.where(places == EMPTY, 0, places)
        if config.position == "learned":
            y = positions.learned(self.position[...], places).astype(dtype)
        else:
            y = positions.sinusoidal(places, config.width, dtype=dtype)
        return x + y.reshape((1,) * (x.ndim - y.ndim) + y.shape)

    def _checked(self, tokens: Any, positions: Any, segment_ids: Any) -> jax.Array:
        tokens = jnp.asarray(tokens)
        fail_unless(
            jnp.issubdtype(tokens.dtype, jnp.integer) and tokens.ndim > 0,
            f"tokens: expected integers [..., T], got {describe_array(tokens)}. Encode text first: tokenizer.encode.",
            TypeError,
        )
        count = tokens.shape[-1]
        fail_unless(
            self.position is None or positions is not None or count <= self.config.context,
            f"tokens: expected at most context = {self.config.context} tokens, the length of the learned position "
            f"table, got {count}. Cut the text, or train with a larger context or position='rotary'.",
        )
        for name, given in (("positions", positions), ("segment_ids", segment_ids)):
            if given is not None:
                check_positions(name, given, count, tokens.shape[:-1])
        return tokens.astype(jnp.promote_types(tokens.dtype, jnp.int32))

    def _check_cache(self, cache: LMCache, tokens: jax.Array, segment_ids: Any, rng: Any) -> None:
        fail_unless(
            segment_ids is None,
            "segment_ids: expected None beside a cache, whose rows carry no segments. Use one cache row per document.",
        )
        rate = self.config.attention_dropout
        fail_unless(
            rng is None or rate == 0,
            f"rng: expected None beside a cache, as no weight is dropped there, got attention_dropout = {rate}. "
            "Leave rng out.",
        )
        layout = (len(self.blocks.scanned), len(self.blocks.rest))
        got = (len(cache.scanned), len(cache.rest)) if isinstance(cache, LMCache) else cache
        fail_unless(
            got == layout,
            f"cache: expected a models.LMCache of {layout[0]} stacked and {layout[1]} single layers, got {got}. Make "
            "it with init_cache of the model that reads it; scanned and unrolled models have different ones.",
        )
        lead, count = cache.positions.shape[:-1], tokens.shape[-1]
        fail_unless(
            lead == tokens.shape[:-1],
            f"tokens: expected leading axes {lead} as in the cache, got {describe_array(tokens)}. Make the cache by "
            f"init_cache(batch={tokens.shape[:-1]}).",
        )
        known = 0 if isinstance(cache.length, jax.core.Tracer) else int(cache.length)
        fail_unless(
            cache.capacity is None or known + count <= cache.capacity,
            f"tokens: expected at most {cache.capacity} rows in the cache, which holds {known}, got {count} more. Make "
            "it larger: init_cache(capacity=).",
        )


def _checked_capture(capture: Any) -> Capture:
    capture = Capture() if capture is None else capture
    fail_unless(
        isinstance(capture, Capture),
        f"capture: expected models.Capture(weights=, hidden=) or None, got {capture!r}.",
        TypeError,
    )
    return capture


def _fold(rng: jax.Array | None, data: int) -> jax.Array | None:
    return None if rng is None else jax.random.fold_in(rng, data)


def create(config: LMConfig, rng: PRNGKeyArray | int = 0) -> TransformerLM:
    """A fresh model, initialised in one compiled call.

        model = TransformerLM(config) with parameters drawn from rng: normal(0.02), residual outputs / sqrt(2 depth)

    Args:
        config: sizes, layout and the attention rule.
        rng: a JAX random key or a seed.

    Returns:
        The model. Scanned and unrolled layouts of one config start with the same numbers.

    Raises:
        ValueError: as `LMConfig`.

    Example:
        >>> from jax_attention import models
        >>> models.create(models.tiny(vocab_size=11)).embedding[...].shape
        (11, 128)

    Reference:
        Radford et al. (2019), section 2.3.
    """
    rng = jax.random.key(rng) if isinstance(rng, int) else rng
    return _create(config, rng)


@jax.jit(static_argnums=0)
def _create(config: LMConfig, rng: jax.Array) -> TransformerLM:
    return TransformerLM(config, rngs=nnx.Rngs(rng))


def scanned(model: TransformerLM) -> TransformerLM:
    """The same model with its blocks stacked for `lax.scan`.

        layers [block_0, …, block_L]  ->  one block whose arrays are [L, ...], per place in the window pattern

    Args:
        model: in either layout.

    Returns:
        A model with `config.scan = True`; its numbers are the same to rounding.

    Raises:
        Nothing.

    Example:
        >>> from jax_attention import models
        >>> model = models.scanned(models.create(models.tiny(vocab_size=11)))
        >>> model.config.scan, model.blocks.repeats
        (True, 2)

    Reference:
        https://github.com/jax-ml/jax/issues/3596: compile time of deep unrolled models.
    """
    return _with_layout(model, True)


def unrolled(model: TransformerLM) -> TransformerLM:
    """The same model with one block after the other; faster steps on CPU, longer compilation when deep.

        one block whose arrays are [L, ...]  ->  layers [block_0, …, block_L]

    Args:
        model: in either layout.

    Returns:
        A model with `config.scan = False`; its numbers are the same to rounding.

    Raises:
        Nothing.

    Example:
        >>> from jax_attention import models
        >>> model = models.create(models.tiny(vocab_size=11, scan=True))
        >>> len(models.unrolled(model).blocks.rest)
        2

    Reference:
        See `scanned`.
    """
    return _with_layout(model, False)


def _with_layout(model: TransformerLM, scan: bool) -> TransformerLM:
    config = dataclasses.replace(model.config, scan=scan)
    copy = jax.tree.map(lambda x: x, model)
    copy.blocks = restack(model.blocks.layers(), config)
    copy.config = config
    return copy
