"""Unigram and bigram baselines: a language model that does not beat them has learnt frequencies only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jax_attention.core.checks import check_int, fail_unless
from jax_attention.data.tokens import Tokens, as_tokens

if TYPE_CHECKING:
    from jaxtyping import Float, Int

UNIGRAM_GRID = 2.0 ** np.arange(-10, 5)
BIGRAM_GRID = 2.0 ** np.arange(-4, 15)
"""Candidates for the smoothing k of unigrams and m of bigrams; the best one is chosen on the training text."""
MAX_TABLE_ENTRIES = 2**24
"""Bigrams are counted in a table of V^2 entries up to this size (128 MB of int64); beyond it they are sorted."""


class Ngram(NamedTuple):
    """Loss of an n-gram model on held-out text.

        nats_per_token = - mean of ln p(token)

    Args:
        nats_per_token: mean loss in nats, comparable with that of a model of the same tokens.
        bits_per_byte: the same loss in bits per byte, comparable between tokenizers.
        smoothing: k of the unigrams or m of the bigrams, chosen on the training text.

    Example:
        >>> from jax_attention import data
        >>> data.Ngram(nats_per_token=2.5, bits_per_byte=3.6, smoothing=1.0).bits_per_byte
        3.6
    """

    nats_per_token: float
    bits_per_byte: float
    smoothing: float


class Baselines(NamedTuple):
    """Unigram and bigram losses, from `ngram_baselines`.

    Args:
        unigram: `Ngram` of tokens without context.
        bigram: `Ngram` of tokens given the previous token.

    Example:
        >>> from jax_attention import data
        >>> data.Baselines._fields
        ('unigram', 'bigram')
    """

    unigram: Ngram
    bigram: Ngram


def ngram_baselines(
    train: Tokens | Any, held_out: Tokens | Any, vocab_size: int, held_out_bytes: int, extra_bits: float = 0.0
) -> Baselines:
    """Count unigrams and bigrams in training text and evaluate them on held-out text.

        p(t)     = (count(t) + k) / (N + k V)
        p(t | s) = (count(s t) + m p(t)) / (count(s) + m)
        bits per byte = (nats / ln 2 + extra_bits) / held_out_bytes

    Both predict every token but the first of each document, as a language model does. k and m are powers of 2 that
    maximise the likelihood of the training text when each token is left out of the counts that predict it.
    Held-out text has no part in that choice.

    Args:
        train: `Tokens` or one integer array per document; pass a single array for one stream.
        held_out: held-out text in the same form.
        vocab_size: V.
        held_out_bytes: UTF-8 bytes of the predicted held-out tokens.
        extra_bits: bits added before the division by bytes, such as `Corpus.escape_bits`.

    Returns:
        `Baselines(unigram, bigram)`, each with `nats_per_token`, `bits_per_byte` and `smoothing`.

    Raises:
        ValueError: if there is no pair of tokens, an id is not in the vocabulary, or a size is smaller than 1.
        TypeError: if a size is not an int.

    Example:
        >>> import numpy as np
        >>> from jax_attention import data
        >>> text = np.tile([0, 1], 1000)
        >>> baselines = data.ngram_baselines(text, text[:100], vocab_size=2, held_out_bytes=99)
        >>> round(baselines.unigram.bits_per_byte, 3), baselines.bigram.bits_per_byte < 0.01
        (1.0, True)

    Reference:
        MacKay and Peto (1995), "A hierarchical Dirichlet language model", for the smoothing of bigrams.
    """
    vocab_size = check_int("vocab_size", vocab_size, 1, "It is tokenizer.vocab_size.")
    held_out_bytes = check_int("held_out_bytes", held_out_bytes, 1, "It is Corpus.validation_bytes.")
    contexts, targets = _bigrams("train", train, vocab_size)
    held_out_contexts, held_out_targets = _bigrams("held_out", held_out, vocab_size)
    counts = np.bincount(np.asarray(as_tokens("train", train).ids), minlength=vocab_size).astype(float)
    context_counts = np.bincount(contexts, minlength=vocab_size).astype(float)
    codes, bigram_counts = _count_bigrams(contexts, targets, vocab_size)
    held_out_codes, held_out_counts = _count_bigrams(held_out_contexts, held_out_targets, vocab_size)

    # Leave-one-out: the counts that predict a training token do not include it, hence every "- 1". Otherwise the
    # likelihood of the training text itself would always prefer the smallest smoothing.
    k = _most_likely(UNIGRAM_GRID, lambda k: (counts - 1 + k) / (counts.sum() - 1 + k * vocab_size), counts)
    unigram = (counts + k) / (counts.sum() + k * vocab_size)

    s, t = np.divmod(codes, vocab_size)
    m = _most_likely(
        BIGRAM_GRID, lambda m: (bigram_counts - 1 + m * unigram[t]) / (context_counts[s] - 1 + m), bigram_counts
    )
    s, t = np.divmod(held_out_codes, vocab_size)
    bigram = (_look_up(held_out_codes, codes, bigram_counts) + m * unigram[t]) / (context_counts[s] + m)

    def loss(probabilities: Float[np.ndarray, "p"], smoothing: float) -> Ngram:
        nats = -float(held_out_counts @ np.log(probabilities))
        return Ngram(nats / len(held_out_contexts), (nats / math.log(2) + extra_bits) / held_out_bytes, smoothing)

    return Baselines(loss(unigram[t], k), loss(bigram, m))


def _bigrams(name: str, x: Any, vocab_size: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Each token that has a successor in its document, and that successor."""
    tokens = as_tokens(name, x)
    ids = np.asarray(tokens.ids)
    fail_unless(
        ids.max(initial=0) < vocab_size,
        f"{name}: expected ids below vocab_size {vocab_size}, got {ids.max(initial=0)}.",
    )
    inside = np.ones(max(len(ids) - 1, 0), bool)
    ends = tokens.starts[1:-1]
    inside[ends[(ends > 0) & (ends < len(ids))] - 1] = False
    fail_unless(
        bool(inside.any()), f"{name}: expected a document of at least 2 tokens, got none. The text is too short."
    )
    return ids[:-1][inside].astype(np.int64), ids[1:][inside].astype(np.int64)


def _count_bigrams(
    contexts: np.ndarray, targets: np.ndarray, vocab_size: int
) -> tuple[Int[np.ndarray, "p"], Float[np.ndarray, "p"]]:
    """The bigrams that occur, as sorted codes `context V + target`, and their counts."""
    codes = contexts * vocab_size + targets
    if vocab_size**2 <= MAX_TABLE_ENTRIES:
        table = np.bincount(codes)
        unique = np.flatnonzero(table)
        return unique, table[unique].astype(float)
    unique, counts = np.unique(codes, return_counts=True)
    return unique, counts.astype(float)


def _look_up(queries: np.ndarray, codes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The count of each queried bigram, 0 if it is not among the sorted `codes`."""
    place = np.minimum(np.searchsorted(codes, queries), len(codes) - 1)
    return np.where(codes[place] == queries, counts[place], 0)


def _most_likely(grid: np.ndarray, leave_one_out: Any, counts: np.ndarray) -> float:
    """The smoothing of the grid with the largest leave-one-out likelihood of the training tokens."""
    occurs = counts > 0
    log_likelihoods = [counts[occurs] @ np.log(leave_one_out(smoothing)[occurs]) for smoothing in grid]
    return float(grid[int(np.argmax(log_likelihoods))])
