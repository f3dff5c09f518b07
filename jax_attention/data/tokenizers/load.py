"""Loading a saved tokenizer, or a `tokenizer.json`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jax_attention.core.checks import fail_unless
from jax_attention.core.foreign_files import read_json
from jax_attention.core.text import quote, quote_path
from jax_attention.data.tokenizers.characters import Bytes, Characters
from jax_attention.data.tokenizers.subwords import DEFINITION, MAX_BYTES, Subwords
from jax_attention.data.tokenizers.tokenizer import SETTINGS, Tokenizer
from jax_attention.data.tokenizers.words import Words


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read a tokenizer that `Tokenizer.save` wrote, or any `tokenizer.json`.

        load_tokenizer(folder) == tokenizer         after tokenizer.save(folder)

    Args:
        folder: the folder, or a `tokenizer.json`, or a folder that holds one.

    Returns:
        A `Tokenizer`.

    Raises:
        FileNotFoundError: if there is no tokenizer.
        ValueError: if a file is not the definition of a tokenizer.
        ImportError: if the tokenizer needs the `tokenizers` library, which is not installed.

    Example:
        >>> import tempfile
        >>> from jax_attention import data
        >>> folder = tempfile.mkdtemp()
        >>> data.Characters("abc").save(folder)
        >>> data.load_tokenizer(folder)
        Characters(vocabulary='abc')
    """
    path = Path(folder)
    if path.is_file():
        return Subwords.load(path)
    if (path / SETTINGS).is_file():
        return _from_settings(path)
    if (path / DEFINITION).is_file():
        return Subwords.load(path / DEFINITION)
    raise FileNotFoundError(
        f"folder: expected a tokenizer ({SETTINGS} or {DEFINITION}), got {str(path)!r}, which "
        f"{'has neither' if path.is_dir() else 'does not exist'}. Name the folder that Tokenizer.save wrote."
    )


def _from_settings(folder: Path) -> Tokenizer:
    path = folder / SETTINGS
    settings = read_json(path, MAX_BYTES, "folder")
    kind = settings.get("kind") if settings.get("format") == 1 else None
    if kind == Bytes.kind:
        return Bytes()
    vocabulary, special_tokens = settings.get("vocabulary"), settings.get("special_tokens", False)
    fits = {
        Subwords.kind: isinstance(special_tokens, bool),
        Characters.kind: isinstance(vocabulary, str),
        Words.kind: isinstance(vocabulary, list) and all(isinstance(word, str) for word in vocabulary),
    }
    fail_unless(
        isinstance(kind, str) and fits.get(kind, False),
        "folder: expected a tokenizer's settings (format 1, kind characters, words, bytes or subwords, with a "
        f"vocabulary) in {quote_path(path)}, got {quote(settings)}. Name the folder that Tokenizer.save wrote.",
    )
    if kind == Subwords.kind:
        return dataclasses.replace(Subwords.load(folder / DEFINITION), special_tokens=special_tokens)
    try:
        if kind == Words.kind:
            return Words(tuple(vocabulary), settings.get("unknown"))
        return Characters(vocabulary, settings.get("unknown"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{quote_path(path)}: {error}") from None
