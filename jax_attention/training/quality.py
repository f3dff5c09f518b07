"""Metrics of generated tokens and texts: token accuracy, exact match, BLEU and ROUGE."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jax_attention.core.checks import check_instance, describe_array, fail_unless

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

BLEU_TOKENIZERS = ("13a", "intl", "zh", "char", "none")
"""The tokenizers of sacrebleu that need neither a download nor another package."""
BEYOND_LATIN = "\u0250"
"""The first letter of Unicode after the Latin ones."""


def token_accuracy(
    predictions: Int[Array, "*shape"], targets: Int[Array, "*shape"], weights: Float[Array, "*#shape"] | None = None
) -> float:
    """Weighted share of tokens that equal the reference.

        accuracy = sum_t w_t [found_t = wanted_t] / sum_t w_t

    Args:
        predictions: token ids `[...]`, such as the likeliest at each position.
        targets: reference ids of the same shape.
        weights: `[...]`, 0 at padding, such as the weights of a batch; None is 1 everywhere.

    Returns:
        A float from 0 to 1.

    Raises:
        ValueError: if the shapes differ, a weight is negative or not finite, all are 0, or a target with a weight is
            negative.
        TypeError: if `predictions` or `targets` are not integers.

    Example:
        >>> from jax_attention import training
        >>> training.token_accuracy([[5, 6, 7], [5, 0, 0]], [[5, 6, 8], [5, 9, 9]], [[1, 1, 1], [1, 0, 0]])
        0.75

    Reference:
        Klein et al. (2017), "OpenNMT", https://arxiv.org/abs/1701.02810: the figure `acc` of its logs.
    """
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    for name, ids in (("predictions", predictions), ("targets", targets)):
        fail_unless(
            np.issubdtype(ids.dtype, np.integer),
            f"{name}: expected integer ids, got {describe_array(ids)}. Take the argmax of logits first.",
            TypeError,
        )
    fail_unless(
        predictions.shape == targets.shape,
        f"predictions: expected the shape of targets, {targets.shape}, got {describe_array(predictions)}. "
        "Cut or pad one of them.",
    )
    weights = np.ones((), np.float64) if weights is None else np.asarray(weights, np.float64)
    fail_unless(
        weights.ndim <= targets.ndim
        and all(w in (1, n) for w, n in zip(weights.shape[::-1], targets.shape[::-1], strict=False)),
        f"weights: expected a shape that broadcasts to {targets.shape}, got {describe_array(weights)}.",
    )
    weights = np.broadcast_to(weights, targets.shape)
    total = weights.sum()
    fail_unless(
        bool(np.isfinite(total)) and bool(np.all(weights >= 0)) and total > 0,
        f"weights: expected finite numbers >= 0 with a positive sum, got the sum {total}. A batch of padding alone "
        "has no accuracy.",
    )
    negative = targets[(targets < 0) & (weights > 0)]
    fail_unless(
        negative.size == 0,
        f"targets: expected ids from 0 where the weight is not 0, got {negative[0] if negative.size else ''}. Leave "
        "such targets out: weights=targets >= 0.",
    )
    return float((weights * (predictions == targets)).sum() / total)


def exact_match(texts: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """Share of texts that equal a reference character by character.

        exact_match = mean_i [texts_i in references_i]

    Args:
        texts: the generated texts.
        references: for each text one string, or several, any of which counts.

    Returns:
        A float from 0 to 1.

    Raises:
        ValueError: if there are no texts, not as many references as texts, or a text without a reference.
        TypeError: if a text or reference is not a string.

    Example:
        >>> from jax_attention import training
        >>> training.exact_match(["Paris", "rome"], [("Paris", "in Paris"), "Rome"])
        0.5

    Reference:
        Rajpurkar et al. (2016), "SQuAD", https://arxiv.org/abs/1606.05250, whose exact match first drops case,
        articles and punctuation; this one drops nothing.
    """
    texts, references = _check_texts(texts, references)
    return sum(text in group for text, group in zip(texts, references, strict=True)) / len(texts)


def bleu(texts: Sequence[str], references: Sequence[str | Sequence[str]], *, tokenize: str = "13a") -> float:
    """BLEU of a corpus of translations, by sacrebleu: the share of n-grams that a reference has too, n from 1 to 4.

        BLEU = 100 min(1, exp(1 - R / C)) (p_1 p_2 p_3 p_4)^(1/4),    p_n = matched n-grams / n-grams of the texts

    C is the number of words of the texts, R that of the references nearest in length. All counts are summed over the
    corpus before they are divided, so this is no mean over sentences. For the k-th n without a match p_n is
    1 / (2^k n-grams). The score is 0 if nothing matches, and if no text has four words.

    Args:
        texts: the generated texts.
        references: for each text one string, or several.
        tokenize: "13a" separates ASCII punctuation from words, "intl" that of all Unicode; "zh" also makes each Chinese
            character a word, "char" every character; "none" splits at spaces only.

    Returns:
        A float from 0 to 100.

    Raises:
        ValueError: if there are no texts, not as many references as texts, a text without a reference, or no such
            tokenizer.
        TypeError: if a text or reference is not a string.
        ImportError: if sacrebleu is not installed.

    Example:
        >>> from jax_attention import training
        >>> round(training.bleu(["the cat sat on the mat"], ["the cat sat on a mat"]), 2)
        53.73

    Reference:
        Papineni et al. (2002), "BLEU"; Post (2018), "A call for clarity in reporting BLEU scores",
        https://arxiv.org/abs/1804.08771.
    """
    texts, references = _check_texts(texts, references)
    _check_choice("tokenize", tokenize, BLEU_TOKENIZERS, "The others of sacrebleu need a download or another package")
    sacrebleu = _import("bleu", "sacrebleu")
    # sacrebleu takes the i-th reference of every text as one list, with None for texts that have fewer.
    max_count = max(map(len, references))
    columns = [[group[i] if i < len(group) else None for group in references] for i in range(max_count)]
    # `force` does nothing but silence a warning about texts that look tokenized.
    return float(sacrebleu.corpus_bleu(texts, columns, tokenize=tokenize, force=True).score)


class Rouge(NamedTuple):
    """F1 of unigrams, bigrams and longest common subsequences: means over texts, from 0 to 100."""

    rouge1: float
    rouge2: float
    rougeL: float


def rouge(texts: Sequence[str], references: Sequence[str | Sequence[str]], *, tokenize: str = "latin") -> Rouge:
    """ROUGE of summaries, by rouge-score: words, pairs of words and longest common subsequences with a reference.

        P = matches / units of the text,    R = matches / units of the reference,    F1 = 200 P R / (P + R)

    Units are n-grams, each of which matches as often as it occurs in both texts; for rougeL they are words, and those
    of the longest common subsequence match. A text with several references gets the best F1. Results are means over
    texts.

    Args:
        texts: the generated texts.
        references: for each text one string, or several.
        tokenize: "latin", the default of rouge-score, lowers the case and drops all but the letters a to z and digits;
            "spaces" splits at spaces and changes nothing; "characters" makes every character but space a word.

    Returns:
        `Rouge(rouge1, rouge2, rougeL)`, floats from 0 to 100.

    Raises:
        ValueError: if there are no texts, not as many references as texts, a text without a reference, no such
            tokenizer, or a reference with letters that "latin" would drop, such as Chinese ones.
        TypeError: if a text or reference is not a string.
        ImportError: if rouge-score is not installed.

    Example:
        >>> from jax_attention import training
        >>> [round(f1, 2) for f1 in training.rouge(["the cat sat on the mat"], ["the cat lay on the mat"])]
        [83.33, 60.0, 83.33]

    Reference:
        Lin (2004), "ROUGE: a package for automatic evaluation of summaries".
    """
    texts, references = _check_texts(texts, references)
    _check_choice("tokenize", tokenize, tuple(ROUGE_TOKENIZERS), "There are no others")
    if tokenize == "latin":
        _check_latin(references)
    split = ROUGE_TOKENIZERS[tokenize]
    scorer = _import("rouge", "rouge_score.rouge_scorer", "rouge-score").RougeScorer(
        list(Rouge._fields), tokenizer=None if split is None else _Tokenizer(split)
    )
    scores = [scorer.score_multi(group, text) for text, group in zip(texts, references, strict=True)]
    return Rouge(*(100 * float(np.mean([score[name].fmeasure for score in scores])) for name in Rouge._fields))


ROUGE_TOKENIZERS: dict[str, Callable[[str], list[str]] | None] = {
    "latin": None,
    "spaces": str.split,
    "characters": lambda text: list("".join(text.split())),
}


class _Tokenizer(NamedTuple):
    """A tokenizer with the method that rouge-score calls."""

    tokenize: Callable[[str], list[str]]


def _check_texts(texts: Any, references: Any) -> tuple[list[str], list[tuple[str, ...]]]:
    """Check and convert the arguments: a list of texts, and for each of them a tuple of references."""
    texts, references = _as_list("texts", texts), _as_list("references", references)
    fail_unless(len(texts) > 0, "texts: expected at least one text, got none. Pass the generated texts.")
    fail_unless(
        len(references) == len(texts),
        f"references: expected one for each of {len(texts)} text(s), got {len(references)}. Put several of one text "
        "into a tuple.",
    )
    groups = [(x,) if isinstance(x, str) else tuple(_as_list("references", x)) for x in references]
    empty = next((i for i, group in enumerate(groups) if not group), None)
    fail_unless(empty is None, f"references: expected at least one for text {empty}, got (). Leave that text out.")
    for name, strings in (("texts", texts), ("references", [x for group in groups for x in group])):
        for string in strings:
            check_instance(name, string, str, "strings", "Decode ids first: tokenizer.decode(ids).")
    return texts, groups


def _as_list(name: str, x: Any) -> list[Any]:
    fail_unless(
        not isinstance(x, str) and hasattr(x, "__iter__"),
        f"{name}: expected a list of strings, got {describe_array(x)}. Put one text into a list: [text].",
        TypeError,
    )
    return list(x)


def _check_choice(name: str, x: Any, choices: tuple[str, ...], cure: str) -> None:
    expected = ", ".join(map(repr, choices))
    fail_unless(isinstance(x, str) and x in choices, f"{name}: expected one of {expected}, got {x!r}. {cure}.")


def _check_latin(references: list[tuple[str, ...]]) -> None:
    """Refuse references with letters that "latin" drops: a text of such letters would score 0 however good it is."""
    letters = (c for group in references for text in group for c in text if c >= BEYOND_LATIN and c.isalpha())
    dropped = next(letters, None)
    fail_unless(
        dropped is None,
        f"references: expected Latin letters for tokenize='latin', got {dropped!r}, which rouge-score drops. Pass "
        "tokenize='characters', or 'spaces' for words with spaces between them.",
    )


def _import(function: str, module: str, package: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{function}: expected the package {package or module}, got none. Install it: pip install "
            "'jax_attention[experiments]'."
        ) from error
