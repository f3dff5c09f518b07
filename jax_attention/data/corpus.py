"""From text and a choice of tokenizer to training and validation sources, in one call."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.files import new_file
from jax_attention.data.documents import Document, read_documents
from jax_attention.data.load import load_tokenizer
from jax_attention.data.ngram import Baselines, ngram_baselines
from jax_attention.data.packed import PackedDocuments
from jax_attention.data.sources import Source, Windows
from jax_attention.data.split import split_documents
from jax_attention.data.stdlib_corpus import standard_library_corpus
from jax_attention.data.subwords import Subwords
from jax_attention.data.symbols import Bytes, Characters
from jax_attention.data.tokenizer import Tokenizer
from jax_attention.data.tokens import Tokens, open_tokens, tokenize, write_tokens
from jax_attention.data.words import Words

UNKNOWN = "\ufffd"
"""Stands for held-out characters that the training text does not have."""
ESCAPE_BITS = math.log2(0x110000 - 0x800)
"""Bits to spell one Unicode character when each is as likely."""
SUBWORD_VOCABULARY = 2048
FACTS = "corpus.json"
CHOICES = "'characters', 'bytes', 'subwords'"


class HeldOut(NamedTuple):
    """A text that a model is judged by.

        bits per byte = (nats_per_token * source.predicted / ln 2 + escape_bits) / text_bytes

    Args:
        source: `source.evaluation_batches` covers all of it.
        text_bytes: UTF-8 bytes that the predicted tokens stand for: the text without its first token (the first of
            every document when packed), which nobody predicts.
        escape_bits: bits to spell the characters that the tokenizer does not know.

    Returns:
        A named tuple.

    Raises:
        Nothing.

    Example:
        >>> from jax_attention import data
        >>> text = data.held_out([data.Document("a", "abcdefghi")], data.Bytes(), length=4)
        >>> text.source.predicted, text.text_bytes, round(text.bits_per_byte(nats_per_token=5.545), 2)
        (8, 8, 8.0)

    Reference:
        See `Corpus`.
    """

    source: Source
    text_bytes: int
    escape_bits: float

    def bits_per_byte(self, nats_per_token: float) -> float:
        """From the mean loss over all predicted tokens, in nats."""
        return (nats_per_token * self.source.predicted / math.log(2) + self.escape_bits) / self.text_bytes


def held_out(documents: Sequence[Document], tokenizer: Tokenizer, *, length: int, packed: bool = False) -> HeldOut:
    """A text to judge a model by, in rows for evaluation.

        documents -> tokens -> Windows or PackedDocuments

    Args:
        documents: from `read_documents`.
        tokenizer: the model's.
        length: T, the tokens in a row.
        packed: whole documents (`PackedDocuments`) instead of windows over all of them (`Windows`).

    Returns:
        `HeldOut(source, text_bytes, escape_bits)`.

    Raises:
        ValueError: if there are fewer than two tokens, or a character that the tokenizer cannot take.

    Example:
        >>> from jax_attention import data
        >>> data.held_out([data.Document("a", "天气")], data.Bytes(), length=4).text_bytes
        5

    Reference:
        See `Corpus`.
    """
    tokens = tokenize(documents, tokenizer)
    source = (PackedDocuments if packed else Windows)(tokens, length)
    return HeldOut(source, _predicted_bytes(tokens, tokenizer, packed), _escape_bits(tokenizer, documents))


def open_corpus(folder: str | Path, tokenizer: Tokenizer, *, length: int, packed: bool = False) -> Corpus:
    """The corpus that `Corpus.save` wrote, its tokens memory-mapped: the text itself is not needed again.

        open_corpus(folder, corpus.tokenizer, length=T)  =  corpus,        after corpus.save(folder)

    Args:
        folder: of the saved corpus.
        tokenizer: that made the tokens; another one is refused.
        length: T, the tokens in a row.
        packed: as in `prepare`.

    Returns:
        A `Corpus`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is damaged, or of another tokenizer.

    Example:
        >>> import tempfile
        >>> from jax_attention import data
        >>> folder = tempfile.mkdtemp()
        >>> corpus = data.prepare([data.Document("a", "to be or not to be " * 50)], length=16)
        >>> corpus.save(folder)
        >>> data.open_corpus(folder, corpus.tokenizer, length=16).validation_bytes == corpus.validation_bytes
        True

    Reference:
        See `write_tokens`.
    """
    folder = Path(folder)
    source = PackedDocuments if packed else Windows
    train, validation = (open_tokens(folder / f"{name}.tokens", tokenizer) for name in ("train", "validation"))
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        names = tuple(tuple(part) for part in facts.pop("names"))
        return Corpus(
            train=source(train, length),
            validation=source(validation, length),
            tokenizer=tokenizer,
            names=names,
            **facts,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"folder: expected the {FACTS} of a saved corpus in {str(folder)!r}, got {error!r}.") from None


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Training and validation sources over one tokenizer, and what bits per byte need.

        bits per byte = (nats_per_token * validation.predicted / ln 2 + escape_bits) / validation_bytes

    Args:
        train: source of training batches.
        validation: source of held-out batches; `validation.evaluation_batches` covers all of it.
        tokenizer: made both.
        train_bytes: UTF-8 bytes of the training text.
        validation_bytes: UTF-8 bytes that the predicted held-out tokens stand for: the text without its first token
            (the first of every document when packed), which nobody predicts.
        escape_bits: bits to spell the held-out characters that training never saw; 0 if there are none.
        names: of training and of held-out documents.

    Returns:
        A frozen dataclass.

    Raises:
        Nothing.

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
        """From the mean loss over `validation.evaluation_batches`, in nats."""
        return HeldOut(self.validation, self.validation_bytes, self.escape_bits).bits_per_byte(nats_per_token)

    def save(self, folder: str | Path) -> None:
        """Write the tokens and what belongs to them into a folder, for `open_corpus`. The tokenizer saves itself."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in (("train", self.train), ("validation", self.validation)):
            write_tokens(folder / f"{name}.tokens", source.tokens)
        facts = {name: getattr(self, name) for name in ("train_bytes", "validation_bytes", "escape_bits", "names")}
        with new_file(folder / FACTS) as file:
            file.write(json.dumps(facts, ensure_ascii=False).encode())

    def baselines(self) -> Baselines:
        """Unigram and bigram counts of the training tokens, judged on the tokens that a model is judged on."""
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
    """Read text, part it, make or load a tokenizer, and give training and validation sources.

        documents -> (training, held out) -> tokenizer (of training text only) -> tokens -> Windows or PackedDocuments

    A character vocabulary is made of training text only. If the held-out text has other characters, U+FFFD joins the
    vocabulary and stands for them, and each adds `log2(1112064)`, about 20 bits, to `Corpus.escape_bits`: what it costs
    to say which character it was. So a figure in bits per byte never profits from what the model could not have said.

    Args:
        paths: what `read_documents` takes, or documents; the sources of Python's standard library if empty.
        tokenizer: "characters", "bytes", "subwords" (a byte-level BPE trained here), the path of a `tokenizer.json` or
            of a saved tokenizer, or a `Tokenizer`.
        vocab_size: of the subwords trained here, 2048 if None; of nothing else.
        length: T, the tokens in a row.
        packed: whole documents with segment ids (`PackedDocuments`) instead of windows over all of them (`Windows`).
        validation_fraction: of the bytes to hold out, as `split_documents` does.

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
        nanoGPT's `data/shakespeare_char/prepare.py`, whose vocabulary also sees the validation text.
    """
    _check_choice(tokenizer, vocab_size)
    check_int("length", length, 1, "It is the number of tokens in a row.")
    training, kept = split_documents(_documents(paths), validation_fraction)
    made = _tokenizer(tokenizer, vocab_size, training, kept)
    train = tokenize(training, made)
    fail_unless(
        packed or len(train.ids) > length,
        f"length: expected fewer than the {len(train.ids)} training tokens, got {length}. Shorten rows, or add text.",
    )
    judge = held_out(kept, made, length=length, packed=packed)
    return Corpus(
        train=(PackedDocuments if packed else Windows)(train, length),
        validation=judge.source,
        tokenizer=made,
        train_bytes=train.text_bytes,
        validation_bytes=judge.text_bytes,
        escape_bits=judge.escape_bits,
        names=tuple(tuple(document.name for document in part) for part in (training, kept)),
    )


def _check_choice(tokenizer: str | os.PathLike | Tokenizer, vocab_size: int | None) -> None:
    """Before any text is read: the tokenizer is one, and `vocab_size` has a meaning for it."""
    fail_unless(
        isinstance(tokenizer, (str, os.PathLike, Tokenizer)),
        f"tokenizer: expected {CHOICES}, a path or a Tokenizer, got {describe_array(tokenizer)}.",
        TypeError,
    )
    known = isinstance(tokenizer, Tokenizer) or tokenizer in ("characters", "bytes", "subwords")
    if not known and not Path(tokenizer).exists():
        raise FileNotFoundError(
            f"tokenizer: expected {CHOICES} or the path of a tokenizer, got {str(tokenizer)!r}, which is neither."
        )
    fail_unless(
        vocab_size is None or tokenizer == "subwords",
        f"vocab_size: expected None, as only tokenizer='subwords' is trained to a size, got {vocab_size} with "
        f"{describe_array(tokenizer) if isinstance(tokenizer, Tokenizer) else repr(tokenizer)}. Leave it out.",
    )


def _documents(paths: object) -> list[Document]:
    if isinstance(paths, (str, os.PathLike)):
        return read_documents(paths)
    entries = list(paths)
    if not entries:
        return standard_library_corpus()
    return entries if all(isinstance(entry, Document) for entry in entries) else read_documents(entries)


def _tokenizer(
    choice: str | os.PathLike | Tokenizer, vocab_size: int | None, training: list[Document], held_out: list[Document]
) -> Tokenizer:
    if isinstance(choice, Tokenizer):
        return choice
    texts = [document.text for document in training]
    if choice == "characters":
        seen = Characters.train(texts)
        strange = any(seen.count_unknown(document.text) for document in held_out)
        return Characters.train(texts, UNKNOWN) if strange else seen
    if choice == "bytes":
        return Bytes()
    if choice == "subwords":
        return Subwords.train(texts, SUBWORD_VOCABULARY if vocab_size is None else vocab_size)
    return load_tokenizer(choice)


def _predicted_bytes(tokens: Tokens, tokenizer: Tokenizer, packed: bool) -> int:
    """The text without its first token (of every document when packed), which nobody predicts."""
    begins = tokens.starts[:-1][np.diff(tokens.starts) > 0]
    first = np.asarray(tokens.ids)[begins if packed else begins[:1]]
    return int(tokens.text_bytes - tokenizer.token_bytes[first].sum())


def _escape_bits(tokenizer: Tokenizer, held_out: list[Document]) -> float:
    """For each unknown character, or those of each unknown word and its end."""
    if isinstance(tokenizer, Characters):
        return ESCAPE_BITS * sum(tokenizer.count_unknown(document.text) for document in held_out)
    if isinstance(tokenizer, Words):
        unknown = [word for document in held_out for word in tokenizer.unknown_words(document.text)]
        return ESCAPE_BITS * sum(len(word) + 1 for word in unknown)
    return 0.0
