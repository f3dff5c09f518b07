"""The public attention functions: one formula, with and without heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

from jax_attention.attention.evaluate import evaluate
from jax_attention.attention.prepare import Options, prepare, prepare_heads
from jax_attention.dropout import Dropout
from jax_attention.implementations.base import Implementation
from jax_attention.implementations.call import AttentionOutput, ResultKind
from jax_attention.masks import Mask
from jax_attention.mods import Mod
from jax_attention.normalizers import Normalizer
from jax_attention.scores import Score

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


def attend(
    query: Float[Array, "*#batch T H"],
    key: Float[Array, "*#batch S Hk"],
    value: Float[Array, "*#batch S E"],
    *,
    score: Score | Callable | None = None,
    mods: tuple[Mod | Callable, ...] = (),
    mask: Mask | Callable | None = None,
    normalize: Normalizer | Callable | None = None,
    dropout: Dropout | None = None,
    query_positions: Int[Array, "*#batch T"] | None = None,
    key_positions: Int[Array, "*#batch S"] | None = None,
    precision: Any = None,
    implementation: str | Implementation | None = None,
) -> Float[Array, "*batch T E"]:
    """Attention: look up values by comparing queries with keys.

        scores  = score(query, key)                           [..., T, S]
        scores  = mod(scores, q_pos, k_pos)                   for each mod, in order
        weights = normalize(scores, where=mask(q_pos, k_pos))
        output  = dropout(weights) @ value                    [..., T, E]

    Pure, and differentiable to any order in both modes (except "cudnn"), also with respect to arrays inside score,
    mods, mask and normalize, and arrays that functions in their place close over. Batch dimensions broadcast; `[T, H]`
    alone is fine. A query that may attend to nothing has output 0 and gradient 0.

    Args:
        query: `[..., T, H]`, floating. Scores and statistics are computed in at least float32.
        key: `[..., S, H]` (`scores.general` allows another size, `scores.location` takes T rows).
        value: `[..., S, E]`; E may differ from H.
        score: a score from `jax_attention.scores` or `f(query, key) -> scores`; None is `scores.scaled_dot()`.
        mods: mods from `jax_attention.mods` or `f(scores, q_pos[..., T, 1], k_pos[..., 1, S]) -> scores`.
        mask: a mask from `jax_attention.masks` or `f(q_pos, k_pos) -> bool`, True = may attend; None allows all pairs.
            A function in place of score, mods or mask may be called with any block of rows and columns: it must treat
            each score by itself, and look up by position what it closes over.
        normalize: a normalizer from `jax_attention.normalizers` or `f(scores, where) -> weights`; None is `softmax()`.
        dropout: `Dropout(rng, rate)`, or None.
        query_positions: integers `[..., T]`, 0 … T-1 if None. Masks and mods see positions, so decoding passes them.
        key_positions: integers `[..., S]`, 0 … S-1 if None.
        precision: of all matrix products, also inside your own functions: None, a name such as "highest", a
            `jax.lax.Precision` or `DotAlgorithmPreset`; one for both operands.
        implementation: None to choose, or `Dense()`, `LinearAttention()`, `Blockwise(tile=...)`, `Cudnn()` or their
            short forms "reference", "linear_attention", "blockwise", "cudnn". A named one never falls back: see
            `explain`.

    Returns:
        `[..., T, E]` in the dtype of `query`.

    Raises:
        TypeError: if an operand is not floating, or something else is passed for a part of the rule.
        ValueError: if shapes do not fit, or the named implementation cannot compute it. All at trace time.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import attend, masks
        >>> x = jnp.array([[1., 0.], [0., 1.], [1., 1.]])
        >>> attend(x, x, x, mask=masks.causal()).round(4)
        Array([[1.    , 0.    ],
               [0.3302, 0.6698],
               [0.7517, 0.7517]], dtype=float32)

    Reference:
        Vaswani et al. (2017), "Attention is all you need", section 3.2.
    """
    rule: dict[str, Any] = {"score": score, "mods": mods, "mask": mask, "normalize": normalize, "dropout": dropout}
    positions: dict[str, Any] = {"query_positions": query_positions, "key_positions": key_positions}
    call = prepare(query, key, value, **rule, **positions, precision=precision, implementation=implementation)
    return evaluate(call)


def attend_heads(
    query: Float[Array, "*#batch T N H"],
    key: Float[Array, "*#batch S K Hk"],
    value: Float[Array, "*#batch S K E"],
    **options: Unpack[Options],
) -> Float[Array, "*batch T N E"]:
    """Attention over several heads: the same formula, with a head axis next to the features.

        output[..., n, :] = attend(query[..., n, :], key[..., n // G, :], value[..., n // G, :]),        G = N / K

    Args:
        query: `[..., T, N, H]`.
        key: `[..., S, K, H]`; N is a multiple of K (grouped queries; K = 1 is multi-query). Keys are not repeated.
        value: `[..., S, K, E]`.
        options: as in `attend`. Scores have batch dimensions `[..., N]`, and those of arrays inside the rule broadcast
            against them: `[N]` for one slope per head, `[B, 1]` for one length per batch element. Positions follow
            the operands instead: `[..., T]` without a head axis.

    Returns:
        `[..., T, N, E]` in the dtype of `query`.

    Raises:
        TypeError, ValueError: as `attend`; also if N is not a multiple of K.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import attend_heads, masks
        >>> q, kv = jnp.ones((2, 5, 8, 4)), jnp.ones((2, 5, 2, 4))
        >>> attend_heads(q, kv, kv, mask=masks.causal()).shape
        (2, 5, 8, 4)

    Reference:
        Ainslie et al. (2023), "GQA: training generalized multi-query transformer models from multi-head checkpoints".
    """
    call, layout = prepare_heads(query, key, value, **options)
    return layout.heads_last(evaluate(call), 2)


def attention_weights(
    query: Float[Array, "*#batch T H"],
    key: Float[Array, "*#batch S Hk"],
    value: Float[Array, "*#batch S E"],
    **options: Unpack[Options],
) -> Float[Array, "*batch T S"]:
    """The weights with which `attend` multiplies the values, as an array.

        attention_weights(q, k, v, ...) @ v = attend(q, k, v, ...)

    Args:
        query: as in `attend`.
        key: as in `attend`.
        value: as in `attend`; only its shape matters.
        options: as in `attend`; dropout is included.

    Returns:
        `[..., T, S]` in the dtype of `query`. This array is quadratic: ask for it to look at it.

    Raises:
        TypeError, ValueError: as `attend`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import attention_weights
        >>> attention_weights(jnp.zeros((1, 2)), jnp.ones((4, 2)), jnp.ones((4, 3)))
        Array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)

    Reference:
        Bahdanau, Cho, Bengio (2015), figure 3: the first pictures of attention weights.
    """
    call = prepare(query, key, value, result=ResultKind.WEIGHTS, **options)
    return evaluate(call)


def attention_weights_heads(
    query: Float[Array, "*#batch T N H"],
    key: Float[Array, "*#batch S K Hk"],
    value: Float[Array, "*#batch S K E"],
    **options: Unpack[Options],
) -> Float[Array, "*batch N T S"]:
    """The weights of `attend_heads`, heads first: one map per head.

        weights[..., n, :, :] = attention_weights(query[..., n, :], key[..., n // G, :], value[..., n // G, :])

    Args:
        query: as in `attend_heads`.
        key: as in `attend_heads`.
        value: as in `attend_heads`; only its shape matters.
        options: as in `attend_heads`.

    Returns:
        `[..., N, T, S]` in the dtype of `query`.

    Raises:
        TypeError, ValueError: as `attend_heads`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import attention_weights_heads
        >>> x = jnp.ones((5, 8, 4))
        >>> attention_weights_heads(x, x, x).shape
        (8, 5, 5)

    Reference:
        Vaswani et al. (2017), "Attention is all you need", figures 3 to 5.
    """
    call, layout = prepare_heads(query, key, value, result=ResultKind.WEIGHTS, **options)
    return layout.merge_groups(evaluate(call), 2)


def attend_with_stats(
    query: Float[Array, "*#batch T H"],
    key: Float[Array, "*#batch S Hk"],
    value: Float[Array, "*#batch S E"],
    **options: Unpack[Options],
) -> AttentionOutput:
    """Attention and row statistics: logsumexp, largest score, entropy, all differentiable.

        logsumexp_t = log sum_s exp(z_ts),    max_score_t = max_s z_ts,    entropy_t = -sum_s w_ts log w_ts

    over the allowed keys, from scores z after the mods and weights w before dropout. Sinks are not keys: they take
    part in the weights, but not in `logsumexp`.

    Args:
        query: as in `attend`.
        key: as in `attend`.
        value: as in `attend`.
        options: as in `attend`.

    Returns:
        `AttentionOutput(output, logsumexp, max_score, entropy)`. The output is that of `attend`, bit for bit
        (to rounding where `attend` would use linear attention); the statistics are `[..., T]` in at least float32.

    Raises:
        TypeError, ValueError: as `attend`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import attend_with_stats
        >>> attend_with_stats(jnp.zeros((1, 2)), jnp.ones((4, 2)), jnp.ones((4, 3))).entropy.round(4)
        Array([1.3863], dtype=float32)

    Reference:
        Dao (2024), "FlashAttention-2", section 3.1 (logsumexp); Zhai et al. (2023), "Stabilizing Transformer training
        by preventing attention entropy collapse".
    """
    call = prepare(query, key, value, result=ResultKind.STATISTICS, **options)
    return evaluate(call)


def attend_with_stats_heads(
    query: Float[Array, "*#batch T N H"],
    key: Float[Array, "*#batch S K Hk"],
    value: Float[Array, "*#batch S K E"],
    **options: Unpack[Options],
) -> AttentionOutput:
    """`attend_with_stats` over several heads.

        AttentionOutput(output[..., T, N, E], logsumexp[..., T, N], max_score[..., T, N], entropy[..., T, N])

    Args:
        query: as in `attend_heads`.
        key: as in `attend_heads`.
        value: as in `attend_heads`.
        options: as in `attend_heads`.

    Returns:
        `AttentionOutput`, in the layout above.

    Raises:
        TypeError, ValueError: as `attend_heads`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import attend_with_stats_heads
        >>> x = jnp.ones((5, 8, 4))
        >>> attend_with_stats_heads(x, x, x).logsumexp.shape
        (5, 8)
    """
    call, layout = prepare_heads(query, key, value, result=ResultKind.STATISTICS, **options)
    output, *statistics = evaluate(call)
    return AttentionOutput(layout.heads_last(output, 2), *(layout.heads_last(x, 1) for x in statistics))
