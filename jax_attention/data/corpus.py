"""Training and validation sources from text and a choice of tokenizer, in one call."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.files import new_file
from jax_attention.core.foreign_files import read_json
from jax_attention.core.short_repr import short_repr
from jax_attention.core.text import quote, quote_path
from jax_attention.data.documents import Document, read_documents
from jax_attention.data.ngram import Baselines, ngram_baselines
from jax_attention.data.packed import PackedDocuments
from jax_attention.data.sources import Source, Windows
from jax_attention.data.split import split_documents
from jax_attention.data.stdlib_corpus import standard_library_corpus
from jax_attention.data.tokenizers.characters import Bytes, Characters
from jax_attention.data.tokenizers.load import load_tokenizer
from jax_attention.data.tokenizers.subwords import Subwords
from jax_attention.data.tokenizers.tokenizer import Tokenizer
from jax_attention.data.tokenizers.words import Words
from jax_attention.data.tokens import Tokens, open_tokens, tokenize, write_tokens

UNKNOWN = "\ufffd"
"""Replaces held-out characters that the training text does not have."""
ESCAPE_BITS = math.log2(0x110000 - 0x800)
"""Bits to name one of the Unicode characters (all code points but surrogates) when all are equally likely."""
SUBWORD_VOCABULARY = 2048
"""Size of a subword vocabulary that is trained without a `vocab_size`."""
SUMMARY_FILE = "corpus.json"
CHOICES = "'characters', 'bytes', 'subwords'"


@short_repr
class HeldOut(NamedTuple):
    """A held-out text that models are compared on.

        bits per byte = (nats_per_token * source.predicted / ln 2 + escape_bits) / text_bytes

    Args:
        source: batches of the whole text, by `source.evaluation_batches`.
        text_bytes: UTF-8 bytes of the predicted tokens: those of the text without its first token (the first of every
            document when packed), which no model predicts.
        escape_bits: bits to spell the characters that are outside the vocabulary.

    Example:
        >>> from jax_attention import data
        >>> text = data.held_out([data.Document("a", "abcdefghi")], data.Bytes(), length=4)
        >>> text.source.predicted, text.text_bytes, round(text.bits_per_byte(nats_per_token=5.545), 2)
        (8, 8, 8.0)
    """

    source: Source
    text_bytes: int
    escape_bits: float

    def bits_per_byte(self, nats_per_token: float) -> float:
        """Bits per byte of a model, from its mean loss over all predicted tokens in nats."""
        return (nats_per_token * self.source.predicted / math.log(2) + self.escape_bits) / self.text_bytes


def held_out(documents: Sequence[Document], tokenizer: Tokenizer, *, length: int, packed: bool = False) -> HeldOut:
    """Prepare a text for evaluating a model on it.

        documents -> tokens -> Windows or PackedDocuments

    Args:
        documents: from `read_documents`.
        tokenizer: the tokenizer of the model.
        length: T, the number of tokens in a row.
        packed: rows of whole documents (`PackedDocuments`) instead of windows over the concatenated text (`Windows`).

    Returns:
        `HeldOut(source, text_bytes, escape_bits)`.

    Raises:
        ValueError: if there are fewer than two tokens, or a character that the tokenizer refuses.

    Example:
        >>> from jax_attention import data
        >>> data.held_out([data.Document("a", "天气")], data.Bytes(), length=4).text_bytes
        5
    """
    tokens = tokenize(documents, tokenizer)
    source = (PackedDocuments if packed else Windows)(tokens, length)
    return HeldOut(source, _predicted_bytes(tokens, tokenizer, packed), _escape_bits(tokenizer, documents))


def open_corpus(
    folder: str | Path, tokenizer: Tokenizer, *, length: int, packed: bool = False, verify: bool = True
) -> Corpus:
    """Open a corpus that `Corpus.save` wrote, with memory-mapped tokens; the text itself is not needed.

        open_corpus(folder, corpus.tokenizer, length=T)  =  corpus,        after corpus.save(folder)

    Args:
        folder: the folder that was passed to `Corpus.save`.
        tokenizer: the tokenizer that made the tokens; any other is refused.
        length: T, the number of tokens in a row.
        packed: as in `prepare`.
        verify: whether to read all ids once and compare their checksums, as in `open_tokens`.

    Returns:
        A `Corpus`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, or was made with another tokenizer.

    Example:
        >>> import tempfile
        >>> from jax_attention import data
        >>> folder = tempfile.mkdtemp()
        >>> corpus = data.prepare([data.Document("a", "to be or not to be " * 50)], length=16)
        >>> corpus.save(folder)
        >>> data.open_corpus(folder, corpus.tokenizer, length=16).validation_bytes == corpus.validation_bytes
        True
    """
    folder = Path(folder)
    source = PackedDocuments if packed else Windows
    splits = ("train", "validation")
    train, validation = (open_tokens(folder / f"{name}.tokens", tokenizer, verify=verify) for name in splits)
    summary = _read_summary(folder / SUMMARY_FILE)
    return Corpus(train=source(train, length), validation=source(validation, length), tokenizer=tokenizer, **summary)


def _read_summary(path: Path) -> dict[str, Any]:
    """The fields of a `Corpus` that `save` writes as JSON."""
    summary = read_json(path, argument="folder")
    names, counts = summary.get("names"), [summary.get("train_bytes"), summary.get("validation_bytes")]
    bits = summary.get("escape_bits")
    fits = (
        summary.keys() == {"train_bytes", "validation_bytes", "escape_bits", "names"}
        and all(type(count) is int and count >= 0 for count in counts)
        and type(bits) in (int, float)
        and bits >= 0
        and isinstance(names, list)
        and len(names) == 2
        and all(isinstance(part, list) and all(isinstance(name, str) for name in part) for part in names)
    )
    fail_unless(
        fits,
        f"folder: expected the {SUMMARY_FILE} of a saved corpus, byte counts and names, in {quote_path(path)}, "
        f"got {quote(summary)}.",
    )
    return summary | {"names": tuple(map(tuple, names))}


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Training and validation sources with their tokenizer, and the byte counts that bits per byte need.

        bits per byte = (nats_per_token * validation.predicted / ln 2 + escape_bits) / validation_bytes

    Args:
        train: source of training batches.
        validation: source of held-out batches; `validation.evaluation_batches` covers the whole held-out text.
        tokenizer: the tokenizer that made the tokens of both.
        train_bytes: UTF-8 bytes of the training text.
        validation_bytes: UTF-8 bytes of the predicted held-out tokens: those of the text without its first token (the
            first of every document when packed), which no model predicts.
        escape_bits: bits to spell held-out characters that the training text lacks; 0 if there are none.
        names: names of training documents, and of held-out documents.

    Example:
        >>> from jax_attention import data
        >>> corpus = data.prepare([data.Document("a", "abcdefghij" * 20)], tokenizer="bytes", length=8)
        >>> corpus.validation_bytes, round(corpus.bits_per_byte(nats_per_token=5.545), 2)
        (19, 8.0)

    Reference:
        Gao et al. (2020), "The Pile", section 3.1, for bits per byte.
    """

    train: Source
    validation: Source
    tokenizer: Tokenizer
    train_bytes: int
    validation_bytes: int
    escape_bits: float
    names: tuple[tuple[str, ...], tuple[str, ...]]

    def bits_per_byte(self, nats_per_token: float) -> float:
        """Bits per byte of a model, from its mean loss over `validation.evaluation_batches` in nats."""
        return HeldOut(self.validation, self.validation_bytes, self.escape_bits).bits_per_byte(nats_per_token)

    def save(self, folder: str | Path) -> None:
        """Write tokens, byte counts and names into a folder, for `open_corpus`. Save the tokenizer separately."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in (("train", self.train), ("validation", self.validation)):
            write_tokens(folder / f"{name}.tokens", source.tokens)
        summary = {name: getattr(self, name) for name in ("train_bytes", "validation_bytes", "escape_bits", "names")}
        with new_file(folder / SUMMARY_FILE) as file:
            file.write(json.dumps(summary, ensure_ascii=False).encode())

    def baselines(self) -> Baselines:
        """Losses of unigram and bigram counts of the training tokens, on the tokens that models are evaluated on."""
        sources = (self.train, self.validation)
        train, held_out = (s.tokens if isinstance(s, PackedDocuments) else np.asarray(s.tokens.ids) for s in sources)
        return ngram_baselines(
            train, held_out, self.tokenizer.vocab_size, self.validation_bytes, extra_bits=self.escape_bits
        )


def prepare(
    paths: str | os.PathLike | Iterable[str | os.PathLike] | Sequence[Document] = (),
    *,
    tokenizer: str | os.PathLike | Tokenizer = "characters",
    vocab_size: int | None = None,
    length: int = 256,
    packed: bool = False,
    validation_fraction: float = 0.1,
) -> Corpus:
    """Read text, split it, train or load a tokenizer, and return training and validation sources.

        documents -> (training, held out) -> tokenizer (of training text only) -> tokens -> Windows or PackedDocuments

    The vocabulary of characters comes from the training text alone. If held-out text has further characters, U+FFFD
    is added to the vocabulary and replaces them, and each of them adds `log2(1112064)`, about 20 bits, to
    `Corpus.escape_bits`: the cost of naming one Unicode character. So a model gets no credit in bits per byte for
    characters that it cannot write.

    Args:
        paths: paths for `read_documents`, or documents; if empty, the sources of Python's standard library.
        tokenizer: "characters", "bytes", "subwords" (a byte-level BPE, trained on the training text), the path of a
            `tokenizer.json` or of a saved tokenizer, or a `Tokenizer`.
        vocab_size: vocabulary size for "subwords", 2048 if None; with any other tokenizer it must be None.
        length: T, the number of tokens in a row.
        packed: rows of whole documents with segment ids (`PackedDocuments`) instead of windows over the concatenated
            text (`Windows`).
        validation_fraction: share of the bytes to hold out, by `split_documents`.

    Returns:
        A `Corpus`.

    Raises:
        ValueError: if there is too little text for one row, or an argument is out of range or would be ignored.
        FileNotFoundError: if a path does not exist.
        TypeError: if an argument has the wrong type.

    Example:
        >>> from jax_attention import data
        >>> corpus = data.prepare([data.Document("a", "to be or not to be " * 50)], length=16)
        >>> corpus.train.batch(seed=0, step=0, batch_size=4).tokens.shape, corpus.tokenizer.vocabulary
        ((4, 16), ' benort')

    Reference:
        nanoGPT's `data/shakespeare_char/prepare.py`. There the vocabulary includes the characters of the validation
        text.
    """
    _check_choice(tokenizer, vocab_size)
    check_int("length", length, 1, "It is the number of tokens in a row.")
    training, validation = split_documents(_as_documents(paths), validation_fraction)
    tokenizer = _make_tokenizer(tokenizer, vocab_size, training, validation)
    train = tokenize(training, tokenizer)
    fail_unless(
        packed or len(train.ids) > length,
        f"length: expected fewer than the {len(train.ids)} training tokens, got {length}. Shorten rows, or add text.",
    )
    evaluation = held_out(validation, tokenizer, length=length, packed=packed)
    return Corpus(
        train=(PackedDocuments if packed else Windows)(train, length),
        validation=evaluation.source,
        tokenizer=tokenizer,
        train_bytes=train.text_bytes,
        validation_bytes=evaluation.text_bytes,
        escape_bits=evaluation.escape_bits,
        names=tuple(tuple(document.name for document in part) for part in (training, validation)),
    )


def _check_choice(tokenizer: str | os.PathLike | Tokenizer, vocab_size: int | None) -> None:
    """Refuse an impossible tokenizer, or a `vocab_size` that would be ignored, before any text is read."""
    fail_unless(
        isinstance(tokenizer, (str, os.PathLike, Tokenizer)),
        f"tokenizer: expected {CHOICES}, a path or a Tokenizer, got {describe_array(tokenizer)}.",
        TypeError,
    )
    is_choice = isinstance(tokenizer, Tokenizer) or tokenizer in ("characters", "bytes", "subwords")
    if not is_choice and not Path(tokenizer).exists():
        raise FileNotFoundError(
            f"tokenizer: expected {CHOICES} or the path of a tokenizer, got {str(tokenizer)!r}, which is neither."
        )
    fail_unless(
        vocab_size is None or tokenizer == "subwords",
        f"vocab_size: expected None, as only tokenizer='subwords' is trained to a size, got {vocab_size} with "
        f"{describe_array(tokenizer) if isinstance(tokenizer, Tokenizer) else repr(tokenizer)}. Leave it out.",
    )


def _as_documents(paths: object) -> list[Document]:
    """The documents at `paths`, or `paths` itself if it holds documents already."""
    if isinstance(paths, (str, os.PathLike)):
        return read_documents(paths)
    entries = list(paths)
    if not entries:
        return standard_library_corpus()
    return entries if all(isinstance(entry, Document) for entry in entries) else read_documents(entries)


def _make_tokenizer(
    choice: str | os.PathLike | Tokenizer, vocab_size: int | None, training: list[Document], held_out: list[Document]
) -> Tokenizer:
    if isinstance(choice, Tokenizer):
        return choice
    texts = [document.text for document in training]
    if choice == "characters":
        characters = Characters.train(texts)
        has_unknown = any(characters.count_unknown(document.text) for document in held_out)
        return Characters.train(texts, UNKNOWN) if has_unknown else characters
    if choice == "bytes":
        return Bytes()
    if choice == "subwords":
        return Subwords.train(texts, SUBWORD_VOCABULARY if vocab_size is None else vocab_size)
    return load_tokenizer(choice)


def _predicted_bytes(tokens: Tokens, tokenizer: Tokenizer, packed: bool) -> int:
    """Bytes of the text without its first token (the first of every document when packed), which is not predicted."""
    nonempty_starts = tokens.starts[:-1][np.diff(tokens.starts) > 0]
    first = np.asarray(tokens.ids)[nonempty_starts if packed else nonempty_starts[:1]]
    return int(tokens.text_bytes - tokenizer.token_byte_counts[first].sum())


def _escape_bits(tokenizer: Tokenizer, held_out: list[Document]) -> float:
    """Bits to spell the unknown characters; of an unknown word, its characters and the end of the word."""
    if isinstance(tokenizer, Characters):
        return ESCAPE_BITS * sum(tokenizer.count_unknown(document.text) for document in held_out)
    if isinstance(tokenizer, Words):
        unknown = [word for document in held_out for word in tokenizer.unknown_words(document.text)]
        return ESCAPE_BITS * sum(len(word) + 1 for word in unknown)
    return 0.0
