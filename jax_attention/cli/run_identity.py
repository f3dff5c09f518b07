"""The identity of a run: a random id, which its checkpoints carry; digests of its config; fingerprints of its data."""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

from jax_attention.core.fingerprints import fingerprint, sample
from jax_attention.core.text import quote_path

DATA = ("corpus/train.tokens", "corpus/validation.tokens", "corpus/corpus.json")
"""Files with a fingerprint; the tokenizer has one of its own."""


def new_identity(folder: Path, model: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The identity of a run whose data are in the folder, with the config of its model and its settings as JSON."""
    data = {name: fingerprint(folder / name) for name in DATA}
    return {"id": secrets.token_hex(8), "data": data, "model": digest(model), "settings": digest(settings)}


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of a part of the config as JSON, its first 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def is_identity(x: Any) -> bool:
    """Whether the identity in a config, which may come from elsewhere, has the parts of `new_identity`."""
    return (
        isinstance(x, dict)
        and isinstance(x.get("id"), str)
        and isinstance(x.get("data"), dict)
        and all(isinstance(x["data"].get(name), dict) for name in DATA)
        and isinstance(x.get("model", ""), str)
        and isinstance(x.get("settings", ""), str)
        and isinstance(x.get("adopted", []), list)
        and all(type(step) is int for step in x.get("adopted", []))
    )


def check_data(folder: Path, identity: dict[str, Any] | None) -> None:
    """Refuse token files that are not those of the run, by size and sampled blocks; `find_changes` reads everything."""
    for name in () if identity is None else DATA:
        expected, path = identity["data"][name], folder / name
        if not path.is_file():
            raise FileNotFoundError(f"run: expected its tokens in {quote_path(path)}, got no such file. Put it back.")
        got = sample(path)
        if any(got[part] != expected.get(part) for part in got):
            size = f"{got['bytes']:,} bytes instead of {expected.get('bytes')}"
            what = "other contents" if got["bytes"] == expected.get("bytes") else size
            raise ValueError(
                f"run: expected the tokens that it was started with in {quote_path(path)}, got {what}: the file is "
                "damaged or of another run. Put the right one back."
            )


def find_changes(folder: Path, identity: dict[str, Any]) -> dict[str, str]:
    """What is wrong with each token file, read whole; an empty text where nothing is."""
    problems = {}
    for name in DATA:
        try:
            same = fingerprint(folder / name) == identity["data"][name]
            problems[name] = "" if same else "not the file that the run was started with"
        except OSError as error:
            problems[name] = error.strerror or str(error)
    return problems
