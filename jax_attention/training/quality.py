"""How good generated tokens and texts are: right tokens, right answers, BLEU and ROUGE."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jax_attention.core.checks import check_instance, describe_array, fail_unless

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

BLEU_TOKENIZERS = ("13a", "intl", "zh", "char", "none")
"""Those of sacrebleu that need neither a download nor another package."""
BEYOND_LATIN = "\u0250"
"""The first letter behind the Latin ones of Unicode."""


def token_accuracy(
    found: Int[Array, "*shape"], wanted: Int[Array, "*shape"], weights: Float[Array, "*#shape"] | None = None
) -> float:
    """The share of tokens that are the wanted ones.

        accuracy = sum_t w_t [found_t = wanted_t] / sum_t w_t

    Args:
        found: ids `[...]`, such as the likeliest of each place.
        wanted: ids of the same shape.
        weights: `[...]`, 0 in padding; None is 1 everywhere. The weights of a batch are such.

    Returns:
        A float from 0 to 1.

    Raises:
        ValueError: if the shapes differ, a weight is negative or not finite, or all are 0.
        TypeError: if `found` or `wanted` are not integers.

    Example:
        >>> from jax_attention import training
        >>> training.token_accuracy([[5, 6, 7], [5, 0, 0]], [[5, 6, 8], [5, 9, 9]], [[1, 1, 1], [1, 0, 0]])
        0.75

    Reference:
        Klein et al. (2017), "OpenNMT", https://arxiv.org/abs/1701.02810, whose logs call it acc.
    """
    found, wanted = np.asarray(found), np.asarray(wanted)
    for name, ids in (("found", found), ("wanted", wanted)):
        fail_unless(
            np.issubdtype(ids.dtype, np.integer),
            f"{name}: expected integer ids, got {describe_array(ids)}. Take the argmax of logits first.",
            TypeError,
        )
    fail_unless(
        found.shape == wanted.shape,
        f"found: expected the shape of wanted, {wanted.shape}, got {describe_array(found)}. Cut or pad one of them.",
    )
    weights = np.ones((), np.float64) if weights is None else np.asarray(weights, np.float64)
    fail_unless(
        weights.ndim <= wanted.ndim
        and all(w in (1, n) for w, n in zip(weights.shape[::-1], wanted.shape[::-1], strict=False)),
        f"weights: expected a shape that broadcasts to {wanted.shape}, got {describe_array(weights)}.",
    )
    weights = np.broadcast_to(weights, wanted.shape)
    total = weights.sum()
    fail_unless(
        bool(np.isfinite(total)) and bool(np.all(weights >= 0)) and total > 0,
        f"weights: expected finite numbers from 0 with a positive sum, got the sum {total}. A batch of padding alone "
        "has no accuracy.",
    )
    return float((weights * (found == wanted)).sum() / total)


def exact_match(texts: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """The share of texts that are a reference, letter by letter.

        exact_match = mean_i [texts_i in references_i]

    Args:
        texts: what was generated.
        references: for each text a string, or several of which any counts.

    Returns:
        A float from 0 to 1.

    Raises:
        ValueError: if there are no texts, not as many references, or a text without any.
        TypeError: if something is not a string.

    Example:
        >>> from jax_attention import training
        >>> training.exact_match(["Paris", "rome"], [("Paris", "in Paris"), "Rome"])
        0.5

    Reference:
        Rajpurkar et al. (2016), "SQuAD", https://arxiv.org/abs/1606.05250; theirs first drops case, articles and
        punctuation, this one nothing.
    """
    texts, references = _paired(texts, references)
    return sum(text in allowed for text, allowed in zip(texts, references, strict=True)) / len(texts)


def bleu(texts: Sequence[str], references: Sequence[str | Sequence[str]], *, tokenize: str = "13a") -> float:
    """BLEU of a corpus of translations, by sacrebleu: n-grams that a reference has too, n from 1 to 4.

        BLEU = 100 min(1, exp(1 - R / C)) (p_1 p_2 p_3 p_4)^(1/4),    p_n = matched n-grams / n-grams of the texts

    C and R are the words of the texts and of the references nearest in length. All counts are summed over the corpus
    before they are divided, so this is no mean over sentences. For the k-th n without a match p_n is 1 / (2^k n-grams).
    A corpus without any match has 0, and one whose texts all have fewer than four words.

    Args:
        texts: what was generated.
        references: for each text a string, or several.
        tokenize: "13a" parts punctuation from words, "intl" all of Unicode's; "zh" also takes each Chinese character
            for a word, "char" every character; "none" parts at spaces and nowhere else.

    Returns:
        A float from 0 to 100.

    Raises:
        ValueError: if there are no texts, not as many references, a text without any, or no such tokenizer.
        TypeError: if something is not a string.
        ImportError: if sacrebleu is not installed.

    Example:
        >>> from jax_attention import training
        >>> round(training.bleu(["the cat sat on the mat"], ["the cat sat on a mat"]), 2)
        53.73

    Reference:
        Papineni et al. (2002), "BLEU"; Post (2018), "A call for clarity in reporting BLEU scores",
        https://arxiv.org/abs/1804.08771.
    """
    texts, references = _paired(texts, references)
    _check_choice("tokenize", tokenize, BLEU_TOKENIZERS, "sacrebleu's others need a download or another package")
    sacrebleu = _imported("bleu", "sacrebleu")
    most = max(map(len, references))
    streams = [[allowed[i] if i < len(allowed) else None for allowed in references] for i in range(most)]
    # `force` silences a warning about texts whose full stops stand alone, and does nothing else.
    return float(sacrebleu.corpus_bleu(texts, streams, tokenize=tokenize, force=True).score)


class Rouge(NamedTuple):
    """F1 of unigrams, bigrams and longest common subsequences: means over texts, from 0 to 100."""

    rouge1: float
    rouge2: float
    rougeL: float


def rouge(texts: Sequence[str], references: Sequence[str | Sequence[str]], *, tokenize: str = "latin") -> Rouge:
    """ROUGE of summaries, by rouge-score: words, pairs of words and the order of words that a reference has too.

        P = matched / those of the text,    R = matched / those of the reference,    F1 = 200 P R / (P + R)

    Matched are n-grams (each as often as in both), for rougeL the words of the longest common subsequence. A text with
    several references gets the best; the figures are means over texts.

    Args:
        texts: what was generated.
        references: for each text a string, or several.
        tokenize: "latin", the library's own, lowers the case and drops all but the letters a to z and digits; "spaces"
            takes what stands between spaces as it is; "characters" takes every character that is not space.

    Returns:
        `Rouge(rouge1, rouge2, rougeL)`, floats from 0 to 100.

    Raises:
        ValueError: if there are no texts, not as many references, a text without any, no such tokenizer, or a reference
            with letters that "latin" would drop, as Chinese ones.
        TypeError: if something is not a string.
        ImportError: if rouge-score is not installed.

    Example:
        >>> from jax_attention import training
        >>> [round(f1, 2) for f1 in training.rouge(["the cat sat on the mat"], ["the cat lay on the mat"])]
        [83.33, 60.0, 83.33]

    Reference:
        Lin (2004), "ROUGE: a package for automatic evaluation of summaries".
    """
    texts, references = _paired(texts, references)
    _check_choice("tokenize", tokenize, tuple(ROUGE_TOKENIZERS), "They are three")
    if tokenize == "latin":
        _check_latin(references)
    parts = ROUGE_TOKENIZERS[tokenize]
    scorer = _imported("rouge", "rouge_score.rouge_scorer", "rouge-score").RougeScorer(
        list(Rouge._fields), tokenizer=None if parts is None else _Parts(parts)
    )
    scored = [scorer.score_multi(allowed, text) for text, allowed in zip(texts, references, strict=True)]
    return Rouge(*(100 * float(np.mean([scores[name].fmeasure for scores in scored])) for name in Rouge._fields))


ROUGE_TOKENIZERS: dict[str, Callable[[str], list[str]] | None] = {
    "latin": None,
    "spaces": str.split,
    "characters": lambda text: list("".join(text.split())),
}


class _Parts(NamedTuple):
    """What rouge-score takes for a tokenizer."""

    tokenize: Callable[[str], list[str]]


def _paired(texts: Any, references: Any) -> tuple[list[str], list[tuple[str, ...]]]:
    """Texts, and for each of them one reference or more."""
    texts, references = _listed("texts", texts), _listed("references", references)
    fail_unless(len(texts) > 0, "texts: expected at least one text, got none. What was generated?")
    fail_unless(
        len(references) == len(texts),
        f"references: expected one for each of {len(texts)} text(s), got {len(references)}. Several of one text stand "
        "in a tuple of their own.",
    )
    allowed = [(one,) if isinstance(one, str) else tuple(_listed("references", one)) for one in references]
    empty = next((i for i, group in enumerate(allowed) if not group), None)
    fail_unless(empty is None, f"references: expected at least one for text {empty}, got (). Leave that text out.")
    for name, strings in (("texts", texts), ("references", [one for group in allowed for one in group])):
        for one in strings:
            check_instance(name, one, str, "strings", "Decode ids first: tokenizer.decode(ids).")
    return texts, allowed


def _listed(name: str, x: Any) -> list[Any]:
    fail_unless(
        not isinstance(x, str) and hasattr(x, "__iter__"),
        f"{name}: expected a list of strings, got {describe_array(x)}. Put one text into a list: [text].",
        TypeError,
    )
    return list(x)


def _check_choice(name: str, x: Any, choices: tuple[str, ...], cure: str) -> None:
    wanted = ", ".join(map(repr, choices))
    fail_unless(isinstance(x, str) and x in choices, f"{name}: expected one of {wanted}, got {x!r}. {cure}.")


def _check_latin(references: list[tuple[str, ...]]) -> None:
    """A summary of dropped letters would score 0 however good it is."""
    strange = next((c for group in references for one in group for c in one if c >= BEYOND_LATIN and c.isalpha()), None)
    fail_unless(
        strange is None,
        f"references: expected Latin letters for tokenize='latin', got {strange!r}, which rouge-score drops. Pass "
        "tokenize='characters', or 'spaces' if the words stand apart.",
    )


def _imported(function: str, module: str, package: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{function}: expected the package {package or module}, got none. Install it: pip install "
            "'jax_attention[experiments]'."
        ) from error
