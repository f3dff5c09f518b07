"""`adapter_config.json` of PEFT, read and written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from jax_attention.core.checks import fail_unless
from jax_attention.core.text import list_names, quote
from jax_attention.interop.hf.config_fields import ConfigFields

CONFIG = "adapter_config.json"
IGNORED = [
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "lora_dropout",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "peft_version",
    "fan_in_fan_out",
    "loftq_config",
    "eva_config",
    "corda_config",
    "runtime_config",
    "qalora_group_size",
    "megatron_config",
    "megatron_core",
    "ensure_weight_tying",
    "modules_to_save",
    "r",
    "rank_pattern",
]
"""Fields that configure how adapters were made, not what they compute: which layers have some, of which rank, and which
are saved whole, is in the arrays and their names.
"""


class AdapterConfig(NamedTuple):
    """What the arrays of a file of adapters mean."""

    scale: Callable[[str, int], float]
    """The function from a layer and its rank to the factor of its adapter, `alpha / rank`."""
    has_magnitudes: bool
    """Whether the layers have magnitudes (DoRA)."""


def read_adapter_config(values: Mapping[str, Any]) -> AdapterConfig:
    """The config of LoRA or DoRA adapters; one that asks for anything else is an error."""
    fields = ConfigFields(values, CONFIG)
    fields.ignore(*IGNORED)
    fields.expect("peft_type", "LORA")
    fields.expect("bias", "none", "lora_only", "all")
    # Other initialisations (PiSSA, OLoRA) change the base weights as well.
    fields.expect("init_lora_weights", True, False, None, "gaussian", "orthogonal")
    for name in ("lora_bias", "use_qalora"):
        fields.expect(name, False)
    alpha, use_root = fields.take("lora_alpha"), fields.take("use_rslora", False)
    alphas = {_layer_pattern(key): x for key, x in (fields.take("alpha_pattern", None) or {}).items()}
    has_magnitudes = fields.take("use_dora", False)
    left = [name for name in fields.unread() if values[name]]
    fail_unless(
        not left, f"{CONFIG}: expected LoRA or DoRA, got also {list_names(left)}, which this library does not read."
    )

    def scale(layer: str, rank: int) -> float:
        layer_alpha = next((x for pattern, x in alphas.items() if pattern.match(layer)), alpha)
        return layer_alpha / (rank**0.5 if use_root else rank)

    return AdapterConfig(scale, has_magnitudes)


def _layer_pattern(key: str) -> re.Pattern[str]:
    """The layers that a key of `alpha_pattern` names: PEFT matches it as a regular expression with the end of a name.

    Only expressions that match in a time proportional to a power of the name's length are taken: no repeated groups.
    """
    is_simple = re.fullmatch(r"[\w.\\|^$\-\[\]*+]{1,400}", key) and key.count("*") + key.count("+") <= 3
    try:
        return re.compile(rf"(.*\.)?({key})$" if is_simple else "(")
    except re.error:
        raise ValueError(
            f"{CONFIG}: expected names of layers in alpha_pattern, or expressions with at most three * or + and no "
            f"groups, got {quote(key)}."
        ) from None


def adapter_config_json(
    ranks: Mapping[str, int], whole_modules: Iterable[str], scale: float, **fields: Any
) -> dict[str, Any]:
    """`adapter_config.json`: the commonest rank as `r`, patterns for layers that have another one.

    Args:
        ranks: rank of each adapted layer.
        whole_modules: modules whose arrays are saved whole.
        scale: factor of all adapters.
        fields: others, as PEFT calls them.
    """
    rank = Counter(ranks.values()).most_common(1)[0][0] if ranks else 1
    others = {layer: other for layer, other in ranks.items() if other != rank}
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": scale * rank,
        "rank_pattern": others,
        "alpha_pattern": {layer: scale * other for layer, other in others.items()},
        "target_modules": sorted(ranks),
        "modules_to_save": sorted(whole_modules) or None,
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
    } | fields
