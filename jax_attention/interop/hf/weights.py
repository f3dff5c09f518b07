"""The arrays of a folder under the names that the table of their family has, whatever the folder calls them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from jax_attention.interop.hf.family import Config, Family

Arrays = dict[str, np.ndarray]


def settled(family: Family, config: Config, stored: Arrays) -> tuple[Config, Arrays]:
    """The config as the arrays decide where it leaves them a choice, and the arrays by the names of its table: without
    buffers, with the prefix that a bare model leaves out, without copies.
    """
    stored = {_now(family, name): x for name, x in stored.items() if not re.search(family.buffers, name)}
    head = _names(family, config.replace(tied_head=False), "head")
    if not any(name.startswith(family.prefix) for name in stored):
        stored = {name if name in head else family.prefix + name: x for name, x in stored.items()}
        if family.headless and not head & stored.keys():
            config = config.replace(**family.headless)
    copies = _copies(family, config)
    different = {name: source for name, source in copies.items() if not _is_copy(stored, name, source)}
    if family.head_decides and different.keys() & head:
        config = config.replace(tied_head=False)
        copies = _copies(family, config)
        different = {name: source for name, source in different.items() if name in copies}
    for name, source in different.items():
        raise ValueError(
            f"path: expected {name} to equal {source}, as tie_word_embeddings says, got others. Set it to false to "
            "keep both."
        )
    for name, source in copies.items():
        if name in stored:
            stored.setdefault(source, stored[name])
            del stored[name]
    dtype = next(iter(stored.values())).dtype
    zeros = {name: np.zeros(shape, dtype) for name, shape in family.absent(config).items()}
    return config, zeros | stored


def _now(family: Family, name: str) -> str:
    for old, new in family.old_names.items():
        name = re.sub(old, new, name)
    return name


def _names(family: Family, config: Config, ours: str) -> set[str]:
    """Their names of all that belongs to our head."""
    return {name for entry in family.entries(config) for name in entry.theirs if _part(entry.ours[0]).startswith(ours)}


def _part(ours: str) -> str:
    """The first name of a path, below the half of a pair."""
    first, _, rest = ours.partition(".")
    return rest if first in ("encoder", "decoder") else first


def _copies(family: Family, config: Config) -> Mapping[str, str]:
    if family.copies is not None:
        return family.copies(config)
    if not config.tied_head:
        return {}
    entries = family.entries(config.replace(tied_head=False))
    head, embedding = (
        next(entry.theirs[0] for entry in entries if entry.ours[0] == name) for name in ("head.kernel", "embedding")
    )
    return {head: embedding}


def _is_copy(stored: Arrays, name: str, source: str) -> bool:
    return name not in stored or source not in stored or np.array_equal(stored[name], stored[source])
