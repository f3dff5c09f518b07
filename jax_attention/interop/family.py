"""What a Hugging Face model family is to us: a config in two directions, and a table of entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax_attention.interop.entries import Entry
from jax_attention.interop.fields import Fields
from jax_attention.models import LMConfig


@dataclass(frozen=True)
class Family:
    """`read` and `write` are each other's inverse on the configs that the family can express."""

    model_type: str
    architecture: str
    prefix: str
    """What the names of all but the head begin with; folders of the bare model leave it out."""
    read: Callable[[Fields], LMConfig]
    write: Callable[[LMConfig], dict[str, Any]]
    entries: Callable[[LMConfig], list[Entry]]
    buffers: str = r"\.(rotary_emb|rope)\.inv_freq$"
    """A pattern of names that hold no parameters, as older versions saved them."""
    in_memory: Mapping[str, str] = field(default_factory=dict)
    """Layers that transformers 5 has under another name than its files: PEFT goes by the former."""
