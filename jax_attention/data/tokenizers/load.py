"""Loading a saved tokenizer, or a `tokenizer.json`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from jax_attention.core.checks import fail_unless
from jax_attention.data.tokenizers.characters import Bytes, Characters
from jax_attention.data.tokenizers.subwords import DEFINITION, Subwords
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
        Characters(vocabulary='abc', unknown=None)
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
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"folder: expected JSON in {str(path)!r}, got something else ({error}).") from None
    readable = isinstance(settings, dict) and settings.get("format") == 1
    kind = settings.get("kind") if readable else None
    if kind == Bytes.kind:
        return Bytes()
    if kind == Subwords.kind:
        tokenizer = Subwords.load(folder / DEFINITION)
        return dataclasses.replace(tokenizer, special_tokens=settings.get("special_tokens", False))
    fail_unless(
        kind in (Characters.kind, Words.kind) and "vocabulary" in settings,
        f"folder: expected a tokenizer's settings (format 1, kind characters, words, bytes or subwords) in "
        f"{str(path)!r}, got {str(settings)[:80]}. Name the folder that Tokenizer.save wrote.",
    )
    if kind == Words.kind:
        return Words(tuple(settings["vocabulary"]), settings.get("unknown"))
    return Characters(settings["vocabulary"], settings.get("unknown"))
