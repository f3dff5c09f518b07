"""Multi-head attention: projections around `attend_heads`, with any attention rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention import cache as kv_cache
from jax_attention import masks
from jax_attention.attention.attend import attend_heads, attention_weights_heads
from jax_attention.core.checks import check_instance, check_positions
from jax_attention.core.numerics import as_int32
from jax_attention.dropout import Dropout
from jax_attention.nn.bias_kv import attend_with_bias_kv, weights_with_bias_kv
from jax_attention.nn.checks import check_cache, check_packed, check_rope, head_sizes, hide_empty
from jax_attention.nn.freeze import freeze, unfreeze, unfreeze_rule
from jax_attention.nn.linear import Linear, PackedProjections, SeparateProjections
from jax_attention.nn.short_repr import ShortRepr
from jax_attention.positions import Rotary
from jax_attention.positions.scaling import present_length

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class MultiHeadAttention(ShortRepr, nnx.Module):
    """Self- or cross-attention over N heads, K of them for keys and values.

        q, k, v = X W_q + b_q,  Y W_k + b_k,  Z W_v + b_v            cut into heads of size H
        output  = concat(attend_heads(rope(norm(q)), rope(norm(k)), v, rule)) W_o + b_o

    Args:
        num_heads: N.
        size: D, features of the query input.
        kv_heads: K, a divisor of N; N if None (1: multi-query).
        head_size: H; `D / N` if None.
        key_size: features of the key input; D if None (`kdim` of PyTorch).
        value_size: features of the value input; `key_size` if None (`vdim`).
        output_size: features of the output; D if None.
        packed: one kernel `[D, (N + 2 K) H]` for all three projections instead of three.
        use_bias: whether the projections have biases.
        out_bias: whether the last linear layer has one; None is `use_bias`.
        bias_kv: adds one learned key and value that every query may attend to (`add_bias_kv` of PyTorch); softmax only.
        head_norm: factory of the norm over the features of each query and key head, before the rotary embedding; called
            with the head size (`functools.partial(nnx.RMSNorm, rngs=rngs)`); None for no norm.
        norm_all_heads: one norm over the features of all heads together (OLMo 2); `head_norm` is called with `N H`.
        rope: `positions.rotary(...)` or `rotary_tables(...)`, applied to queries and keys, or None.
        score: as in `attend`, or a module such as `nn.Additive`.
        mods: as in `attend`; each may be an `nn.LearnedPart`.
        mask: as in `attend`; combined by & with the mask of the call.
        normalize: as in `attend`, or an `nn.LearnedPart`. `softmax(plus_one=True)` is PyTorch's `add_zero_attn`.
        precision: precision of all products.
        dtype: dtype to compute in; the widest of input and parameters if None.
        param_dtype: dtype of the parameters.
        rngs: random keys, used here and not kept.

    Returns:
        A module; call it as `layer(x)` or `layer(x, keys, values)`. `layer.weights` gives the attention weights and
        `layer.step` decodes with a cache. Cross-attention to one source in many calls is `layer.project_memory(keys)`
        once and `layer.cross_attend(x, memory)` in each.

    Raises:
        ValueError: if sizes do not divide, `packed` has inputs of several sizes, or `bias_kv` is not with a softmax.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import masks, nn, positions
        >>> layer = nn.MultiHeadAttention(4, 16, kv_heads=2, rope=positions.rotary(), rngs=nnx.Rngs(0))
        >>> x = jnp.ones((2, 5, 16))
        >>> layer(x, mask=masks.causal()).shape, layer.weights(x).shape
        ((2, 5, 16), (2, 4, 5, 5))

    Reference:
        Vaswani et al. (2017), "Attention is all you need", section 3.2.2.
    """

    def __init__(
        self,
        num_heads: int,
        size: int,
        *,
        kv_heads: int | None = None,
        head_size: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        output_size: int | None = None,
        packed: bool = False,
        use_bias: bool = True,
        out_bias: bool | None = None,
        bias_kv: bool = False,
        head_norm: Callable[[int], nnx.Module] | None = None,
        norm_all_heads: bool = False,
        rope: Rotary | None = None,
        score: Any = None,
        mods: tuple = (),
        mask: Any = None,
        normalize: Any = None,
        precision: Any = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_rope(rope)
        kv_heads, head_size = head_sizes(num_heads, size, kv_heads, head_size)
        key_size = size if key_size is None else key_size
        value_size = key_size if value_size is None else value_size
        check_packed(packed, size, key_size, value_size)
        options = dict(use_bias=use_bias, dtype=dtype, precision=precision, param_dtype=param_dtype, rngs=rngs)
        widths = (num_heads * head_size, kv_heads * head_size, kv_heads * head_size)
        self.projections = (
            PackedProjections(size, widths, **options)
            if packed
            else SeparateProjections((size, key_size, value_size), widths, **options)
        )
        options["use_bias"] = use_bias if out_bias is None else out_bias
        self.out = Linear(num_heads * head_size, size if output_size is None else output_size, **options)
        init, shape = jax.nn.initializers.normal(stddev=head_size**-0.5), (1, kv_heads, head_size)
        biases = (nnx.Param(init(rngs.params(), shape, param_dtype)) if bias_kv else None for _ in range(2))
        self.bias_k, self.bias_v = biases
        norm_sizes = widths[:2] if norm_all_heads else (head_size, head_size)
        self.query_norm, self.key_norm = (head_norm and head_norm(size) for size in norm_sizes)
        self.rule = nnx.Dict(score=freeze(score), mask=freeze(mask), normalize=freeze(normalize))
        self.mods = nnx.List([freeze(mod) for mod in (mods if isinstance(mods, (tuple, list)) else (mods,))])
        self._rope, self.norm_all_heads = nnx.static(freeze(rope)), norm_all_heads
        self.num_heads, self.kv_heads, self.head_size, self.precision = num_heads, kv_heads, head_size, precision

    @property
    def rope(self) -> Rotary | None:
        """The rotary embedding, whose tables are constants, or None."""
        return unfreeze(self._rope)

    def __call__(
        self,
        query: Float[Array, "*batch T D"],
        key: Float[Array, "*batch S Dk"] | None = None,
        value: Float[Array, "*batch S Dv"] | None = None,
        *,
        mask: Any = None,
        mods: tuple = (),
        query_positions: Int[Array, "*batch T"] | None = None,
        key_positions: Int[Array, "*batch S"] | None = None,
        dropout: Dropout | None = None,
    ) -> Float[Array, "*batch T Dout"]:
        """Attention output `[..., T, output_size]`; `key` None is self-attention, `value` None takes `key`.

        `mask` is combined with the layer's by &, `mods` follow the layer's. Positions are as in `attend_heads`, and the
        rotary embedding uses them too. In self-attention the key positions are the query positions.
        """
        positions = {"query_positions": query_positions, "key_positions": key_positions}
        q, k, v, options = self._prepare(query, key, value, mask=mask, mods=mods, dropout=dropout, **positions)
        return self._project_output(self._attend(q, k, v, options))

    def weights(
        self,
        query: Float[Array, "*batch T D"],
        key: Float[Array, "*batch S Dk"] | None = None,
        value: Float[Array, "*batch S Dv"] | None = None,
        **options: Any,
    ) -> Float[Array, "*batch N T S"]:
        """Attention weights `[..., N, T, S]` of the same call; with `bias_kv` S is one larger, the learned key last."""
        q, k, v, options = self._prepare(query, key, value, **options)
        return self._attention_weights(q, k, v, options)

    def step(
        self,
        x: Float[Array, "*batch T D"],
        cache: kv_cache.KVCache,
        *,
        mask: Any = None,
        mods: tuple = (),
        positions: Any = None,
    ) -> tuple[Float[Array, "*batch T Dout"], kv_cache.KVCache]:
        """Self-attention of T new rows over themselves and a cache; returns the output and the new cache.

        Prefill and decoding are the same call. Slots not yet written are never attended to, whatever the mask.
        `positions` continue those of the cache if None. A ring overwrites old rows, so it needs a mask with a bounded
        window (here or in the layer) and a capacity of at least `window + T - 1`.
        """
        q, key, cache, options = self._append(x, cache, mask, mods, positions)
        return self._project_output(self._attend(q, key, cache.value.astype(q.dtype), options)), cache

    def step_weights(
        self,
        x: Float[Array, "*batch T D"],
        cache: kv_cache.KVCache,
        *,
        mask: Any = None,
        mods: tuple = (),
        positions: Any = None,
    ) -> Float[Array, "*batch N T C"]:
        """Attention weights `[..., N, T, C]` of the same call of `step`, over the C slots of the cache after it."""
        q, key, cache, options = self._append(x, cache, mask, mods, positions)
        return self._attention_weights(q, key, cache.value.astype(q.dtype), options)

    def project_memory(
        self,
        key: Float[Array, "*batch S Dk"],
        value: Float[Array, "*batch S Dv"] | None = None,
        *,
        positions: Int[Array, "*batch S"] | None = None,
    ) -> kv_cache.KVCache:
        """Keys and values of a source, such as the output of an encoder, for all later calls of `cross_attend`.

        Rows at position `cache.EMPTY` are padding, which no query attends to; `positions=None` means no padding.
        """
        if self.rope is not None and self.rope.scaling.needs_length:
            raise ValueError(f"rope: expected frequencies that do not change with the length, got {self.rope!r}.")
        if positions is not None:
            positions = check_positions("positions", positions, key.shape[-2], key.shape[:-2])
        k, v = self.projections.project_key_value(key, value)
        k_pos = jnp.arange(k.shape[-2], dtype=jnp.int32) if positions is None else positions
        k, v = self._key_value_heads(k, v, k_pos)
        return kv_cache.KVCache(k, v, None if positions is None else k_pos, jnp.asarray(k.shape[-3], jnp.int32))

    def cross_attend(
        self, query: Float[Array, "*batch T D"], memory: kv_cache.KVCache, **options: Any
    ) -> Float[Array, "*batch T Dout"]:
        """`layer(query, key, value)` with keys and values from `project_memory`, whose batch dimensions broadcast.

        Options are `mask`, `mods`, `query_positions`, `dropout`, as in the call.
        """
        q, options = self._prepare_cross(query, memory, **options)
        return self._project_output(self._attend(q, memory.key.astype(q.dtype), memory.value.astype(q.dtype), options))

    def cross_attention_weights(
        self, query: Float[Array, "*batch T D"], memory: kv_cache.KVCache, **options: Any
    ) -> Float[Array, "*batch N T S"]:
        """Attention weights `[..., N, T, S]` of the same call of `cross_attend`."""
        q, options = self._prepare_cross(query, memory, **options)
        return self._attention_weights(q, memory.key.astype(q.dtype), memory.value.astype(q.dtype), options)

    def _prepare_cross(
        self,
        query: Any,
        memory: Any,
        mask: Any = None,
        mods: Any = (),
        query_positions: Any = None,
        dropout: Any = None,
    ) -> tuple[jax.Array, dict[str, Any]]:
        check_instance("memory", memory, kv_cache.KVCache, "the result of layer.project_memory(key)")
        q = self.projections.project_query(query)
        q_pos = jnp.arange(q.shape[-2], dtype=jnp.int32) if query_positions is None else query_positions
        options = self._options(None, mask, mods, query_positions, memory.positions, dropout)
        if memory.positions is not None:
            options["mask"] = hide_empty(options["mask"])
        return self._query_heads(q, q_pos), options

    def _append(
        self, x: jax.Array, cache: kv_cache.KVCache, mask: Any, mods: Any, positions: Any
    ) -> tuple[jax.Array, jax.Array, kv_cache.KVCache, dict[str, Any]]:
        """The queries, all keys, the cache with the new rows, and the rule for attention over its slots."""
        positions = kv_cache.next_positions(cache, x.shape[-2]) if positions is None else positions
        options = self._options(None, mask, mods, positions, cache.positions, None)
        check_cache(cache, x.shape[-2], options["mask"])
        if self.rope is not None and self.rope.scaling.needs_length:
            # Every key turns when the sequence grows, so the cache has them as they are before the rotation, and each
            # call rotates all of them by the present length (Peng et al. 2024, section 3.3; transformers#25104).
            q, k, v = self.projections(x, None, None)
            k, v = self._split_heads(k, self.kv_heads, self.key_norm), self._split_heads(v, self.kv_heads, None)
            cache = kv_cache.append(cache, k, v, positions)
            length = present_length(cache.positions)
            q = self._query_heads(q, positions, length)
            key = self._apply_rope(cache.key.astype(q.dtype), cache.positions, length)
        else:
            q, k, v = self._project(x, None, None, positions, positions)
            cache = kv_cache.append(cache, k, v, positions)
            key = cache.key.astype(q.dtype)
        options |= {"mask": hide_empty(options["mask"]), "key_positions": cache.positions}
        return q, key, cache, options

    def _prepare(
        self,
        query: Any,
        key: Any,
        value: Any,
        *,
        mask: Any = None,
        mods: Any = (),
        query_positions: Any = None,
        key_positions: Any = None,
        dropout: Dropout | None = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        if key is None:
            if value is not None:
                raise ValueError("key: expected an array together with value, got None. Pass layer(query, key, value).")
            key_positions = query_positions if key_positions is None else key_positions
        q, k, v = self._project(query, key, value, query_positions, key_positions)
        return q, k, v, self._options(query, mask, mods, query_positions, key_positions, dropout)

    def _project(self, query: Any, key: Any, value: Any, q_pos: Any, k_pos: Any) -> tuple[jax.Array, ...]:
        """Queries, keys and values in heads, normed and rotated."""
        q, k, v = self.projections(query, key, value)
        q_pos = jnp.arange(q.shape[-2], dtype=jnp.int32) if q_pos is None else q_pos
        k_pos = jnp.arange(k.shape[-2], dtype=jnp.int32) if k_pos is None else k_pos
        length = None
        if self.rope is not None and self.rope.scaling.needs_length:
            length = present_length(as_int32(jnp.asarray(q_pos)), as_int32(jnp.asarray(k_pos)))
        return self._query_heads(q, q_pos, length), *self._key_value_heads(k, v, k_pos, length)

    def _query_heads(self, q: jax.Array, positions: Any, length: Any = None) -> jax.Array:
        """Projected queries in heads, normed and rotated."""
        return self._apply_rope(self._split_heads(q, self.num_heads, self.query_norm), positions, length)

    def _key_value_heads(
        self, k: jax.Array, v: jax.Array, positions: Any, length: Any = None
    ) -> tuple[jax.Array, jax.Array]:
        """Projected keys and values in heads, the keys normed and rotated."""
        k = self._apply_rope(self._split_heads(k, self.kv_heads, self.key_norm), positions, length)
        return k, self._split_heads(v, self.kv_heads, None)

    def _split_heads(self, x: jax.Array, count: int, norm: nnx.Module | None) -> jax.Array:
        x = norm(x) if norm is not None and self.norm_all_heads else x
        x = x.reshape(*x.shape[:-1], count, self.head_size)
        return x if norm is None or self.norm_all_heads else norm(x)

    def _apply_rope(self, x: jax.Array, positions: Any, length: Any) -> jax.Array:
        return x if self.rope is None else self.rope.heads(x, positions, length=length)

    def _options(self, rows: Any, mask: Any, mods: Any, q_pos: Any, k_pos: Any, dropout: Any) -> dict[str, Any]:
        rule = unfreeze_rule(self.rule, rows)
        if mask is not None:
            rule["mask"] = mask if rule["mask"] is None else masks.as_mask(rule["mask"]) & mask
        mods = mods if isinstance(mods, (tuple, list)) else (mods,)
        return {
            **rule,
            "mods": (*(unfreeze(mod, rows) for mod in self.mods), *mods),
            "query_positions": q_pos,
            "key_positions": k_pos,
            "dropout": dropout,
            "precision": self.precision,
        }

    def _attend(self, q: jax.Array, k: jax.Array, v: jax.Array, options: dict[str, Any]) -> jax.Array:
        if self.bias_k is None:
            return attend_heads(q, k, v, **options)
        return attend_with_bias_kv(q, k, v, self.bias_k[...], self.bias_v[...], options)

    def _attention_weights(self, q: jax.Array, k: jax.Array, v: jax.Array, options: dict[str, Any]) -> jax.Array:
        if self.bias_k is None:
            return attention_weights_heads(q, k, v, **options)
        return weights_with_bias_kv(q, k, v, self.bias_k[...], self.bias_v[...], options)

    def _project_output(self, x: jax.Array) -> jax.Array:
        return self.out(x.reshape(*x.shape[:-2], self.num_heads * self.head_size))
