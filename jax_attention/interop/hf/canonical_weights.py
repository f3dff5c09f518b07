"""The arrays of a folder under the names of their family's table, whatever names the folder uses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from jax_attention.core.checks import fail_unless
from jax_attention.core.text import list_names
from jax_attention.interop.hf.family import Config, Family
from jax_attention.interop.hf.stored_weights import StoredArray, check_floats

Arrays = dict[str, StoredArray]
WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names that wrappers add to those of the model in them: `torch.compile`, data parallelism, checkpointing."""
BASE, PEFT_BASE = "base_model.", "model."
"""Beginning of names in a file of a model inside another, and what follows it if that is a model of PEFT."""


def canonicalized(family: Family, config: Config, stored: Arrays) -> tuple[Config, Arrays]:
    """The arrays of a folder by the names of the family's table: names of wrappers, buffers and copies removed, present
    names for old ones, the prefix of a bare model added, zeros for what may be left out.

    Also the config, changed where it is the arrays that decide: a bare model has no head, and some families store an
    untied head under a config that says it is tied.
    """
    stored = _unwrapped(family, stored)
    stored = {_present_name(family, name): x for name, x in stored.items() if not re.search(family.buffers, name)}
    check_floats(stored)
    fail_unless(len(stored) > 0, "path: expected weights of a model, got only buffers, which the config determines.")
    head = _head_names(family, config.replace(tied_head=False))
    if not any(name.startswith(family.prefix) for name in stored):
        stored = {name if name in head else family.prefix + name: x for name, x in stored.items()}
        if family.headless and not head & stored.keys():
            config = config.replace(**family.headless)
    copies = _copies(family, config)
    different = {name: source for name, source in copies.items() if not _is_copy(stored, name, source)}
    if family.head_weight_unties and different.keys() & head:
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
    zeros = {
        name: StoredArray(dtype, shape, partial(np.zeros, shape, dtype))
        for name, shape in family.optional_zeros(config).items()
    }
    return config, zeros | stored


def without_wrappers(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays under their names without those of wrappers."""
    names = {name: WRAPPERS.sub("", name) for name in arrays}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    fail_unless(
        not twice, f"path: expected each array once, got several, with and without wrappers: {list_names(twice)}."
    )
    return {names[name]: x for name, x in arrays.items()}


def _unwrapped(family: Family, stored: Arrays) -> Arrays:
    """The arrays of the model inside of wrappers and of a PEFT model."""
    stored = without_wrappers(stored)
    if not all(name.startswith(BASE) for name in stored):
        return stored
    stored = {name.removeprefix(BASE): x for name, x in stored.items()}
    has_prefix_twice = any(name.startswith(2 * PEFT_BASE) for name in stored)
    is_peft = all(name.startswith(PEFT_BASE) for name in stored) and (family.prefix != PEFT_BASE or has_prefix_twice)
    return {name.removeprefix(PEFT_BASE): x for name, x in stored.items()} if is_peft else stored


def _present_name(family: Family, name: str) -> str:
    for old, new in family.renamed.items():
        name = re.sub(old, new, name)
    return name


def _head_names(family: Family, config: Config) -> set[str]:
    """Hugging Face names of all weights of the head."""
    return {
        name
        for mapping in family.weight_mappings(config)
        for name in mapping.torch_names
        if _first_name(mapping.jax_names[0]).startswith("head")
    }


def _first_name(jax_name: str) -> str:
    """First name of a path, after `encoder` or `decoder`."""
    first, _, rest = jax_name.partition(".")
    return rest if first in ("encoder", "decoder") else first


def _copies(family: Family, config: Config) -> Mapping[str, str]:
    if family.copies is not None:
        return family.copies(config)
    if not config.tied_head:
        return {}
    mappings = family.weight_mappings(config.replace(tied_head=False))
    head, embedding = (
        next(mapping.torch_names[0] for mapping in mappings if mapping.jax_names[0] == name)
        for name in ("head.kernel", "embedding")
    )
    return {head: embedding}


def _is_copy(stored: Arrays, name: str, source: str) -> bool:
    if name not in stored or source not in stored:
        return True
    copy, original = stored[name], stored[source]
    return copy.shape == original.shape and np.array_equal(copy.read(), original.read())
