"""Subword tokenizers of the `tokenizers` library: a byte-level BPE trained on texts, or any `tokenizer.json`."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jax_attention.core.checks import check_int, fail_unless
from jax_attention.data.tokenizers.tokenizer import SETTINGS, Tokenizer, settings_json, utf8

if TYPE_CHECKING:
    from jaxtyping import Int

DEFINITION = "tokenizer.json"
"""Conventional name of the file in which the `tokenizers` library saves a whole tokenizer."""
FALLBACK_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
"""Name of a byte token in a sentencepiece vocabulary."""


@dataclasses.dataclass(frozen=True)
class Subwords(Tokenizer):
    """Subword tokenizer, run by the `tokenizers` library.

        encode(text) = merges(bytes of text)            (byte-level BPE)

    A byte-level tokenizer decodes to exactly the text that was encoded. Other definitions may not: lower-casing,
    Unicode normalisation and `[UNK]` lose something, and bits per byte then describe the text that is left. Truncation
    and padding are switched off whatever the definition says, and decoding keeps special tokens.

    Args:
        definition: the text of a `tokenizer.json`. `Subwords.train(texts, vocab_size)` trains one, and
            `Subwords.load(path)` reads one.
        special_tokens: whether `encode` adds the special tokens that the definition puts around a text, such as `<s>`
            at the beginning. They count as 0 bytes.

    Raises:
        ValueError: if the `tokenizers` library cannot read the definition.
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
        """Train a byte-level BPE: the 256 bytes and the most frequent merges, fewer if the texts have no more."""
        vocab_size = check_int("vocab_size", vocab_size, 257, "256 of them are bytes, the others merges.")
        fail_unless(not isinstance(texts, str), "texts: expected several texts, got one str. Pass [text].", TypeError)
        library = _library()
        engine = library.Tokenizer(library.models.BPE())
        engine.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        engine.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=sorted(_byte_letters()), show_progress=False
        )
        engine.train_from_iterator((utf8(text).decode() for text in texts), trainer)
        return cls(engine.to_str())

    @classmethod
    def load(cls, path: str | Path) -> Subwords:
        """Read a `tokenizer.json`."""
        try:
            return cls(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{str(path)!r}: {error}") from None

    @functools.cached_property
    def _engine(self) -> Any:
        library = _library()
        try:
            engine = library.Tokenizer.from_str(self.definition)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(
                f"definition: expected the text of a {DEFINITION} of the tokenizers library, got "
                f"{self.definition[:40]!r}… ({error}). Save one with tokenizers.Tokenizer.save(path)."
            ) from None
        engine.no_truncation()
        engine.no_padding()
        return engine

    @functools.cached_property
    def vocab_size(self) -> int:
        return 1 + max(self._engine.get_vocab(with_added_tokens=True).values(), default=-1)

    @functools.cached_property
    def token_bytes(self) -> tuple[bytes, ...] | None:
        decoder = json.loads(self.definition).get("decoder") or {}
        if decoder.get("type") != "ByteLevel":
            return None
        letters = _byte_letters()
        added = {i: token.content.encode() for i, token in self._engine.get_added_tokens_decoder().items()}
        names = {i: name for name, i in self._engine.get_vocab(with_added_tokens=False).items()}
        regular = [_spelled_bytes(names.get(i, ""), letters) for i in range(self.vocab_size)]
        return tuple(added.get(i, content) for i, content in enumerate(regular))

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        utf8(text)
        return np.array(self._engine.encode(text, add_special_tokens=self.special_tokens).ids, np.int32)

    def encode_many(self, texts: Iterable[str]) -> list[Int[np.ndarray, "N"]]:
        texts = list(texts)
        for text in texts:
            utf8(text)
        encodings = self._engine.encode_batch_fast(texts, add_special_tokens=self.special_tokens)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    @functools.cached_property
    def token_byte_counts(self) -> Int[np.ndarray, "V"]:
        counts = super().token_byte_counts.copy()
        counts[self.encode("")] = 0  # the special tokens that `encode` adds stand for no text
        return counts

    def decode(self, ids: Any) -> str:
        if self.token_bytes is not None:
            return super().decode(ids)
        return self._engine.decode(self.checked(ids), skip_special_tokens=False)

    def stable_prefix(self, ids: list[int]) -> str:
        """The decoded text without an unfinished last character; "" while later ids may still change it.

        U+FFFD at the end may be a character whose last bytes are still to come. After a byte token nothing is final:
        the library decodes a whole run of byte tokens at once, and another byte may turn all of it into U+FFFD.
        """
        if self._rewrites or FALLBACK_BYTE.fullmatch(self._engine.id_to_token(ids[-1]) or ""):
            return ""
        return self.decode(ids).rstrip("\ufffd")

    @functools.cached_property
    def _rewrites(self) -> bool:
        """Whether decoding more ids can change text before them.

        The clean-up of WordPiece contracts "do n't" to "don't" when all of it is there; CTC drops repeated tokens.
        """
        decoder = json.dumps(json.loads(self.definition).get("decoder"))
        return '"WordPiece"' in decoder or '"CTC"' in decoder

    def contents(self) -> dict[str, bytes]:
        settings = {"special_tokens": True} if self.special_tokens else {}
        return {SETTINGS: settings_json(kind=self.kind, **settings), DEFINITION: self.definition.encode()}


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
