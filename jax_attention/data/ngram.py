"""Unigram and bigram counts: what a language model must beat to have learnt more than frequencies."""

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
TABLE_ENTRIES = 2**24
"""Seq2SeqBatches are counted in a table of at most so many entries (128 MB); beyond that they are sorted."""


class Ngram(NamedTuple):
    """How well counts predict the held-out tokens.

        nats_per_token = - mean of ln p(token)

    Args:
        nats_per_token: the loss of a model, to compare with.
        bits_per_byte: the same for every tokenizer.
        smoothing: k of the unigrams, m of the bigrams, as chosen on the training text.

    Returns:
        A tuple of three numbers.

    Raises:
        Nothing.

    Example:
        >>> from jax_attention import data
        >>> data.Ngram(nats_per_token=2.5, bits_per_byte=3.6, smoothing=1.0).bits_per_byte
        3.6

    Reference:
        See `ngram_baselines`.
    """

    nats_per_token: float
    bits_per_byte: float
    smoothing: float


class Baselines(NamedTuple):
    """The figures of `ngram_baselines`.

        baselines = (unigram, bigram)

    Args:
        unigram: of single tokens.
        bigram: of tokens after the one before.

    Returns:
        A pair of `Ngram`.

    Raises:
        Nothing.

    Example:
        >>> from jax_attention import data
        >>> data.Baselines._fields
        ('unigram', 'bigram')

    Reference:
        See `ngram_baselines`.
    """

    unigram: Ngram
    bigram: Ngram


def ngram_baselines(
    train: Tokens | Any, held_out: Tokens | Any, vocab_size: int, held_out_bytes: int, extra_bits: float = 0.0
) -> Baselines:
    """Count unigrams and bigrams in training text and judge them on held-out text.

        p(t)     = (count(t) + k) / (N + k V)
        p(t | s) = (count(s t) + m p(t)) / (count(s) + m)
        bits per byte = (nats / ln 2 + extra_bits) / held_out_bytes

    Both predict what a model predicts: every token but the first of each document. k and m are powers of 2, chosen on
    the training text alone: each token in turn is left out of the counts that predict it.

    Args:
        train: `Tokens` or one integer array per document; pass a single array for one stream.
        held_out: the same.
        vocab_size: V.
        held_out_bytes: the UTF-8 bytes that the predicted held-out tokens stand for.
        extra_bits: bits to add before dividing, such as `Corpus.escape_bits`.

    Returns:
        `Baselines(unigram, bigram)`, each with `nats_per_token`, `bits_per_byte` and `smoothing`.

    Raises:
        ValueError: if there is no pair of tokens, an id is not in the vocabulary, or a size is smaller than 1.
        TypeError: if a size is not an int.

    Example:
        >>> import numpy as np
        >>> from jax_attention import data
        >>> text = np.tile([0, 1], 1000)
        >>> found = data.ngram_baselines(text, text[:100], vocab_size=2, held_out_bytes=99)
        >>> round(found.unigram.bits_per_byte, 3), found.bigram.bits_per_byte < 0.01
        (1.0, True)

    Reference:
        MacKay and Peto (1995), "A hierarchical Dirichlet language model", for the bigrams.
    """
    vocab_size = check_int("vocab_size", vocab_size, 1, "It is tokenizer.vocab_size.")
    held_out_bytes = check_int("held_out_bytes", held_out_bytes, 1, "It is Corpus.validation_bytes.")
    first, second = _pairs("train", train, vocab_size)
    asked, answer = _pairs("held_out", held_out, vocab_size)
    counts = np.bincount(np.asarray(as_tokens("train", train).ids), minlength=vocab_size).astype(float)
    followed = np.bincount(first, minlength=vocab_size).astype(float)
    seen, times = _counted(first, second, vocab_size)
    wanted, repeats = _counted(asked, answer, vocab_size)

    k = _likeliest(UNIGRAM_GRID, lambda k: (counts - 1 + k) / (counts.sum() - 1 + k * vocab_size), counts)
    unigram = (counts + k) / (counts.sum() + k * vocab_size)

    context, following = np.divmod(seen, vocab_size)
    m = _likeliest(BIGRAM_GRID, lambda m: (times - 1 + m * unigram[following]) / (followed[context] - 1 + m), times)
    context, following = np.divmod(wanted, vocab_size)
    bigram = (_look_up(wanted, seen, times) + m * unigram[following]) / (followed[context] + m)

    def judged(probabilities: Float[np.ndarray, "p"], smoothing: float) -> Ngram:
        nats = -float(repeats @ np.log(probabilities))
        return Ngram(nats / len(asked), (nats / math.log(2) + extra_bits) / held_out_bytes, smoothing)

    return Baselines(judged(unigram[following], k), judged(bigram, m))


def _pairs(name: str, x: Any, vocab_size: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Tokens and their next ones, inside documents."""
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


def _counted(first: np.ndarray, second: np.ndarray, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that occur, as sorted numbers `first V + second`, and how often."""
    numbers = first * vocab_size + second
    if vocab_size**2 <= TABLE_ENTRIES:
        table = np.bincount(numbers)
        pairs = np.flatnonzero(table)
        return pairs, table[pairs].astype(float)
    pairs, times = np.unique(numbers, return_counts=True)
    return pairs, times.astype(float)


def _look_up(wanted: np.ndarray, seen: np.ndarray, times: np.ndarray) -> np.ndarray:
    """How often each wanted pair was seen."""
    place = np.minimum(np.searchsorted(seen, wanted), len(seen) - 1)
    return np.where(seen[place] == wanted, times[place], 0)


def _likeliest(grid: np.ndarray, left_out: Any, times: np.ndarray) -> float:
    """The smoothing under which the training tokens, each left out of its own count, are likeliest."""
    occurs = times > 0
    scores = [times[occurs] @ np.log(left_out(smoothing)[occurs]) for smoothing in grid]
    return float(grid[int(np.argmax(scores))])
