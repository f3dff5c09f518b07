"""What a Hugging Face model family is to us: a config in two directions, and a table of entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.weight_mapping import Entry
from jax_attention.models import EncoderDecoderConfig, LMConfig

Config = LMConfig | EncoderDecoderConfig


@dataclass(frozen=True)
class Family:
    """`read` and `write` are each other's inverse on the configs that the family can express."""

    model_type: str
    architecture: str
    prefix: str
    """What the names of all but the head begin with; folders of the bare model leave it out."""
    read: Callable[[Fields], Config]
    write: Callable[[Config], dict[str, Any]]
    entries: Callable[[Config], list[Entry]]
    buffers: str = r"\.(rotary_emb|rope)\.inv_freq$"
    """A pattern of names that are not read: what older versions saved beside the parameters, heads of other tasks."""
    in_memory: Mapping[str, str] = field(default_factory=dict)
    """Layers that transformers 5 has under another name than its files: PEFT goes by the former."""
    task: str | None = "CAUSAL_LM"
    """What PEFT calls the task; None where it has no name for it."""
    pair: bool = False
    """Whether the config is that of an encoder and a decoder."""
    old_names: Mapping[str, str] = field(default_factory=dict)
    """Patterns of names that older versions gave -> how they are called now."""
    copies: Callable[[Config], Mapping[str, str]] | None = None
    """Names under which some files hold an array once more -> its name; None is that of a tied head."""
    absent: Callable[[Config], Mapping[str, tuple[int, ...]]] = lambda config: {}
    """Arrays that some files leave out, as they are zero -> their shapes."""
    headless: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the config for folders of the bare model, whose head is lost."""
    head_decides: bool = False
    """Files may hold another head although the config says that it is tied, which then it is not."""
