"""A Hugging Face model family: its config in both directions, and its table of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.weight_mapping import WeightMapping
from jax_attention.models import EncoderDecoderConfig, LMConfig

Config = LMConfig | EncoderDecoderConfig


@dataclass(frozen=True)
class Family:
    """A `model_type` of Hugging Face. `read` and `write` are inverse on the configs that the family can express."""

    model_type: str
    architecture: str
    """Name of the class in transformers, with its language-model head."""
    prefix: str
    """First part of all weight names but the head's; folders of the bare model leave it out."""
    read: Callable[[ConfigFields], Config]
    write: Callable[[Config], dict[str, Any]]
    weight_mappings: Callable[[Config], list[WeightMapping]]
    buffers: str = r"\.(rotary_emb|rope)\.inv_freq$"
    """Pattern of weight names to ignore: buffers that older versions saved with the parameters, heads of other tasks.
    """
    names_in_memory: Mapping[str, str] = field(default_factory=dict)
    """Layers whose name in a transformers 5 model differs from the one in its files. PEFT uses the name in memory."""
    peft_task: str | None = "CAUSAL_LM"
    """`task_type` of PEFT; None where it has no name for the task."""
    is_encoder_decoder: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Patterns of weight names that older versions wrote -> their present replacement."""
    copies: Callable[[Config], Mapping[str, str]] | None = None
    """Names under which some files store an array once more -> its name. None: the tied head is the only copy."""
    optional_zeros: Callable[[Config], Mapping[str, tuple[int, ...]]] = lambda config: {}
    """Arrays that some files leave out because they are zero -> their shapes."""
    headless: Mapping[str, Any] = field(default_factory=dict)
    """Config fields to replace for folders of the bare model, which has no head."""
    head_weight_unties: bool = False
    """Whether a stored head that differs from the embedding unties the head, although the config says it is tied."""
