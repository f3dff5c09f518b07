"""Subword tokenizers of the `tokenizers` library: a byte-level BPE trained on texts, or any `tokenizer.json`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jax_attention.core.checks import check_int, fail_unless
from jax_attention.core.foreign_files import parse_json, read_bytes
from jax_attention.core.text import quote, quote_path
from jax_attention.data.tokenizers.growth import check_growth
from jax_attention.data.tokenizers.tokenizer import SETTINGS, Tokenizer, last_ids, settings_json, utf8

if TYPE_CHECKING:
    from jaxtyping import Int

DEFINITION = "tokenizer.json"
"""Conventional name of the file in which the `tokenizers` library saves a whole tokenizer."""
MAX_BYTES = 128 * 2**20
"""Largest `tokenizer.json`; those of published models have at most 40 MB."""
MAX_VOCABULARY = 2**24
"""Ids of tokens are below it; published vocabularies have at most 262,144. Tables of all ids are made."""
FALLBACK_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
"""Name of a byte token in a sentencepiece vocabulary."""
STEP_LETTERS = {
    "Replace": "r",
    "ByteFallback": "b",
    **dict.fromkeys(("WordPiece", "Metaspace", "BPEDecoder", "CTC"), "t"),
    "Strip": "s",
    "Fuse": "f",
    "ByteLevel": "l",
}
"""Letters of the steps of decoders in `IN_ORDER`; "_" is the replacement of sentencepiece's mark by a space."""
IN_ORDER = re.compile("[_r]*[ts]?(f[fs]*)?|_*b[ts]?(f[fs]*)?|_*l[fs]*")
"""Decoders that handle tokens one by one: what a token adds to the text depends on that token, on the one before it, on
whether any text came before, and on the bytes around it. A replacement after the joining (f, l) could change all of the
text. One before the byte tokens (b) or the bytes (l) could make new ones or lose some, unless it is that of the mark.
"""
MAX_WORD = 1024
"""Longest word in bytes that training counts as one. The library's time grows with the square of a word's length, and a
text without spaces is one word: 100,000 Chinese characters took minutes. No word of a natural language is as long, so
the result for texts with spaces is the same.
"""


@dataclasses.dataclass(frozen=True)
class Subwords(Tokenizer):
    """Subword tokenizer, run by the `tokenizers` library.

        encode(text) = merges(bytes of text)            (byte-level BPE)

    A byte-level tokenizer decodes to exactly the text that was encoded. Other definitions may not: lower-casing,
    Unicode normalisation and `[UNK]` lose something, and bits per byte then describe the text that is left. Truncation
    and padding are switched off whatever the definition says. Decoding keeps special tokens unless
    `skip_special_tokens=True`.

    Args:
        definition: the text of a `tokenizer.json`. `Subwords.train(texts, vocab_size)` trains one, and
            `Subwords.load(path)` reads one.
        special_tokens: whether `encode` adds the special tokens that the definition puts around a text, such as `<s>`
            at the beginning. They count as 0 bytes.

    A definition may come from a stranger. One that makes texts more than 1,024 times longer (`growth.py`), or has ids
    from 2^24 on, is refused; a regular expression that backtracks ends in a ValueError by `encode`. Expressions whose
    time grows with the square of the text's length are not found.

    Raises:
        ValueError: if the `tokenizers` library cannot read the definition, or it is refused. By `encode` and `decode`,
            if the library fails.
        ImportError: if the `tokenizers` library is not installed.

    Example:
        >>> from jax_attention import data
        >>> tokenizer = data.Subwords.train(["low lower"] * 9, vocab_size=260)
        >>> [tokenizer.decode([i]) for i in tokenizer.encode("lower")]
        ['low', 'er']

    Reference:
        Sennrich, Haddow and Birch (2016), https://arxiv.org/abs/1508.07909; Radford et al. (2019), section 2.2.
    """

    definition: str
    special_tokens: bool = False

    kind: ClassVar[str] = "subwords"

    def __post_init__(self) -> None:
        utf8(self.definition)
        self._engine  # noqa: B018  # a bad definition fails here, not at the first use

    def __repr__(self) -> str:
        return f"Subwords(vocab_size={self.vocab_size}, fingerprint={self.fingerprint})"

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Subwords:
        """Train a byte-level BPE: the 256 bytes and the most frequent merges, fewer if the texts have no more.

        Words longer than 1,024 bytes count as several words, as the time would grow with the square of their length.
        """
        vocab_size = check_int("vocab_size", vocab_size, 257, "256 of them are bytes, the others merges.")
        fail_unless(not isinstance(texts, str), "texts: expected several texts, got one str. Pass [text].", TypeError)
        library = _library()
        engine = library.Tokenizer(library.models.BPE())
        engine.pre_tokenizer = training_words(library)
        engine.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=sorted(_byte_letters()), show_progress=False
        )
        engine.train_from_iterator((utf8(text).decode() for text in texts), trainer)
        engine.pre_tokenizer = _words(library)
        return cls(engine.to_str())

    @classmethod
    def load(cls, path: str | Path) -> Subwords:
        """Read a `tokenizer.json`."""
        try:
            return cls(read_bytes(Path(path), MAX_BYTES).decode("utf-8"))
        except ValueError as error:
            raise ValueError(f"{quote_path(path)}: {error}") from None

    @functools.cached_property
    def _engine(self) -> Any:
        library = _library()
        self._decoder  # noqa: B018  # its checks come before the library reads the definition
        try:
            with _panics_as_errors("definition"):
                engine = library.Tokenizer.from_str(self.definition)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(
                f"definition: expected the text of a {DEFINITION} of the tokenizers library, got "
                f"{quote(self.definition, 40)} ({quote(str(error), 200)}). Save one with "
                "tokenizers.Tokenizer.save(path)."
            ) from None
        engine.no_truncation()
        engine.no_padding()
        largest = max(engine.get_vocab(with_added_tokens=True).values(), default=-1)
        fail_unless(largest < MAX_VOCABULARY, f"definition: expected ids below {MAX_VOCABULARY:,}, got {largest:,}.")
        return engine

    @functools.cached_property
    def _decoder(self) -> str:
        """The decoder of the definition as JSON, after the checks of the whole."""
        definition = parse_json(self.definition, DEFINITION, "definition", check_depth=False)
        check_growth(definition)
        return json.dumps(definition.get("decoder"))

    @functools.cached_property
    def vocab_size(self) -> int:
        return 1 + max(self._engine.get_vocab(with_added_tokens=True).values(), default=-1)

    @functools.cached_property
    def token_bytes(self) -> tuple[bytes, ...] | None:
        decoder = json.loads(self._decoder)
        if not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
            return None
        letters = _byte_letters()
        added = {i: token.content.encode() for i, token in self._engine.get_added_tokens_decoder().items()}
        names = {i: name for name, i in self._engine.get_vocab(with_added_tokens=False).items()}
        regular = [_spelled_bytes(names.get(i, ""), letters) for i in range(self.vocab_size)]
        return tuple(added.get(i, content) for i, content in enumerate(regular))

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        utf8(text)
        with _panics_as_errors("text"):
            return np.array(self._engine.encode(text, add_special_tokens=self.special_tokens).ids, np.int32)

    def encode_many(self, texts: Iterable[str]) -> list[Int[np.ndarray, "N"]]:
        texts = list(texts)
        for text in texts:
            utf8(text)
        with _panics_as_errors("texts"):
            encodings = self._engine.encode_batch_fast(texts, add_special_tokens=self.special_tokens)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    @functools.cached_property
    def token_byte_counts(self) -> Int[np.ndarray, "V"]:
        counts = super().token_byte_counts.copy()
        counts[self.encode("")] = 0  # the special tokens that `encode` adds stand for no text
        return counts

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        added = self._engine.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special)

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        if self.token_bytes is not None:
            return super().decode(ids, skip_special_tokens)
        with _panics_as_errors("ids"):
            return self._engine.decode(self.checked(ids, skip_special_tokens), skip_special_tokens=False)

    def stable_prefix(self, ids: list[int]) -> str:
        """The decoded text without an unfinished last character; "" while later ids may still change it.

        U+FFFD at the end may be a character whose last bytes are still to come. After a byte token nothing is final:
        the library decodes a whole run of byte tokens at once, and another byte may turn all of it into U+FFFD.
        """
        if not ids or not self._decodes_in_order or self._name_length(ids[-1]) == 0:
            return ""
        return self.decode(ids).rstrip("\ufffd")

    def decoding_context(self, ids: Any, skip_special_tokens: bool = False) -> list[int]:
        """The last ids that decide what later ids add to the text; see the base class.

        Without `token_bytes` that depends on four things: whether any text came before; the token before; the run of
        byte tokens that it ends, which is decoded as one; and, where a decoder joins bytes, the last three of them. So
        the context goes back to four letters of tokens that are no bytes, and on until it has text.
        """
        if self.token_bytes is not None or not self._decodes_in_order:
            return super().decoding_context(ids, skip_special_tokens)
        kept, letters = self.checked(ids, skip_special_tokens), 4
        context = last_ids(kept, self._name_length, letters)
        while len(context) < len(kept) and not self.decode(context):
            letters *= 2
            context = last_ids(kept, self._name_length, letters)
        return context

    def _name_length(self, i: int) -> int:
        """Letters of a token in the vocabulary; 0 for byte tokens and for ids without a token."""
        name = self._engine.id_to_token(i) or ""
        return 0 if FALLBACK_BYTE.fullmatch(name) else len(name)

    @functools.cached_property
    def _decodes_in_order(self) -> bool:
        """Whether the decoder handles tokens one by one and then joins them, as those of `IN_ORDER` do."""
        decoder = json.loads(self._decoder)
        steps = decoder.get("decoders", [decoder]) if isinstance(decoder, dict) else []
        return IN_ORDER.fullmatch("".join(map(_step_letter, steps))) is not None

    def contents(self) -> dict[str, bytes]:
        settings = {"special_tokens": True} if self.special_tokens else {}
        return {SETTINGS: settings_json(kind=self.kind, **settings), DEFINITION: self.definition.encode()}


def _step_letter(step: dict[str, Any]) -> str:
    """The letter of a step of a decoder in `IN_ORDER`."""
    if step["type"] == "Replace" and (step["pattern"], step["content"]) == ({"String": "▁"}, " "):
        return "_"
    return STEP_LETTERS.get(step["type"], "?")


def training_words(library: ModuleType) -> Any:
    """The pre-tokenizer of training: the words of the tokenizer, with longer ones than `MAX_WORD` bytes cut up."""
    # A byte is one letter after the first step, and none of these letters is a line break, which "." does not match.
    long_word = library.pre_tokenizers.Split(library.Regex(f".{{{MAX_WORD}}}"), "isolated")
    return library.pre_tokenizers.Sequence([_words(library), long_word])


def _words(library: ModuleType) -> Any:
    return library.pre_tokenizers.ByteLevel(add_prefix_space=False)


@contextlib.contextmanager
def _panics_as_errors(argument: str) -> Iterator[None]:
    """Make errors of the `tokenizers` library ValueErrors, panics too, which are no Exceptions.

    An expression that backtracks for too long ends so, after about a third of a second.
    """
    try:
        yield
    except ValueError:
        raise
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise ValueError(
            f"{argument}: expected what this tokenizer can read, got an error of the tokenizers library: "
            f"{quote(str(error), 200)}"
        ) from None


def _byte_letters() -> dict[str, int]:
    """The letter with which byte-level tokenizers write each byte, mapped to that byte.

    GPT-2's convention: printable Latin-1 characters stand for their code point, and all other bytes take code points
    from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _spelled_bytes(name: str, letters: dict[str, int]) -> bytes:
    """Bytes of a token from its name in the vocabulary; a name with other letters is itself the text."""
    if all(letter in letters for letter in name):
        return bytes(letters[letter] for letter in name)
    return name.encode()


def _library() -> ModuleType:
    try:
        import tokenizers
    except ImportError:
        raise ImportError(
            "Subwords: expected the tokenizers library, which is not installed. Install it: "
            "pip install 'jax_attention[train]'. Characters, Words and Bytes need nothing."
        ) from None
    return tokenizers
