"""Special token ids that a Hugging Face folder names. They belong to the tokenizer: no config of a model has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jax_attention.core.checks import fail_unless
from jax_attention.core.foreign_files import read_json
from jax_attention.core.text import quote
from jax_attention.interop.hf.folder import CONFIG, MAX_CONFIG_BYTES, check_folder, read_config_json

GENERATION_CONFIG = "generation_config.json"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def stop_tokens(path: str | Path) -> tuple[int, ...]:
    """The tokens that end a text of a Hugging Face model, `eos_token_id`: one, several or none.

    Args:
        path: the folder. Its `generation_config.json` goes before its `config.json`, as in transformers; the second
            is read where the first names no token.

    Returns:
        The ids, for `stop_tokens=` of `decoding.generate` and `beam_search`.

    Raises:
        FileNotFoundError: if the folder has no `config.json`.
        ValueError: if they are no ids.

    Example:
        >>> import tempfile
        >>> from jax_attention import decoding, interop, models
        >>> model, folder = models.create(models.gpt2(vocab_size=19, width=8, depth=1, num_heads=2)), tempfile.mkdtemp()
        >>> interop.save(model, folder, fields={"eos_token_id": [2, 3]})
        'gpt2'
        >>> interop.stop_tokens(folder)
        (2, 3)
        >>> generated = decoding.generate(model, [5, 6], max_new_tokens=4, stop_tokens=interop.stop_tokens(folder))
    """
    folder = check_folder(path)
    generation = folder / GENERATION_CONFIG
    values = {CONFIG: read_config_json(folder)}
    if generation.is_file():
        values = {GENERATION_CONFIG: read_json(generation, MAX_CONFIG_BYTES)} | values
    for name, fields in values.items():
        ids = _take_ids(fields, "eos_token_id", name)
        if ids is not None:
            return tuple(ids) if isinstance(ids, list) else (ids,)
    return ()


def token_ids(folder: Path, names: tuple[str, ...] = TOKEN_IDS) -> dict[str, Any]:
    """The special ids that the folder's config names, each an id or a list of ids."""
    config = read_config_json(folder)
    ids = {name: _take_ids(config, name, CONFIG) for name in names}
    return {name: x for name, x in ids.items() if x is not None}


def _take_ids(fields: dict[str, Any], name: str, file: str) -> int | list[int] | None:
    ids = fields.get(name)
    fits = ids is None or (all(map(_is_id, ids)) if isinstance(ids, list) else _is_id(ids))
    fail_unless(fits, f"{file}: expected {name} to be an id or a list of ids, got {quote(ids)}.")
    return ids


def _is_id(x: Any) -> bool:
    return type(x) is int and 0 <= x < 2**31
