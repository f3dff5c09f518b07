"""The config of a Hugging Face folder as a config of this library, and the families that can express such a config."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jax_attention import normalizers, scores
from jax_attention.core.checks import fail_unless
from jax_attention.core.text import list_names, quote
from jax_attention.interop.hf.config_fields import NEUTRAL_VALUES, ConfigFields
from jax_attention.interop.hf.families import FAMILIES
from jax_attention.interop.hf.family import Config, Family
from jax_attention.interop.hf.folder import CONFIG, read_config_json
from jax_attention.models import EncoderDecoderConfig, LMConfig
from jax_attention.positions import Rotary, rotary

NEUTRAL = ("scan", "remat", "dtype", "param_dtype", "dropout", "attention_dropout")
"""Fields of `LMConfig` that do not change which function a model computes without dropout. Dropout rates are written
where the family has a field for them.
"""
BY_TYPE = {family.model_type: family for family in FAMILIES}

# --- Reading ---------------------------------------------------------------------------------------------------------


def read_config(folder: Path) -> tuple[Family, Config]:
    """The family and the config of the model in a folder. No array is read."""
    fields = read_fields(folder)
    family = family_of(fields)
    return family, config_from_fields(family, fields)


def read_fields(folder: Path, ignore_fields: Iterable[str] = ()) -> dict[str, Any]:
    """The fields of `config.json` without those to ignore, which must be there: a misspelt name is an error."""
    is_named = isinstance(ignore_fields, (tuple, list, set, frozenset)) and all(
        isinstance(name, str) for name in ignore_fields
    )
    fail_unless(
        is_named, f"ignore_fields: expected names of fields, got {quote(ignore_fields)}. One is (name,).", TypeError
    )
    fields = read_config_json(folder)
    unknown = sorted(set(ignore_fields) - fields.keys())
    fail_unless(not unknown, f"ignore_fields: expected fields that {CONFIG} has, got {list_names(unknown)}.")
    return {name: x for name, x in fields.items() if name not in ignore_fields}


def family_of(fields: Mapping[str, Any]) -> Family:
    """The family that the `model_type` of a Hugging Face config names."""
    model_type = fields.get("model_type")
    if not isinstance(model_type, str) or model_type not in BY_TYPE:
        raise ValueError(f"config.json: expected a model_type among {', '.join(BY_TYPE)}, got {quote(model_type)}.")
    return BY_TYPE[model_type]


def config_from_fields(family: Family, values: dict[str, Any]) -> Config:
    """The config of a model of this family. A field that is unknown or of another kind is an error."""
    fields = ConfigFields(values)
    fields.expect("is_encoder_decoder", family.is_encoder_decoder)
    for name in ("architectures", "num_labels"):  # transformers reads them
        fields.take(name, None)
    config = family.read(fields)
    for name in NEUTRAL_VALUES.keys() & set(fields.unread()):
        fields.expect(name, *NEUTRAL_VALUES[name])
    if fields.unread():
        unknown = list_names([f"{name} = {quote(values[name], 40)}" for name in fields.unread()])
        raise ValueError(
            f"config.json: expected only fields that are known of {family.model_type}, got also {unknown}. They "
            "may change what the model computes; remove those that do not, or name them in ignore_fields."
        )
    return config


# --- Writing ---------------------------------------------------------------------------------------------------------


def matching_families(config: Config, model_type: str | None) -> list[tuple[Family, dict[str, Any]]]:
    """Families that express exactly this config, each with its fields: at least one, of all or of the named one.

    A family matches if reading what it wrote gives the config back, so each `write` only has to be right for configs
    that it can express.
    """
    if model_type is not None and (not isinstance(model_type, str) or model_type not in BY_TYPE):
        raise ValueError(f"family: expected one of {', '.join(BY_TYPE)}, got {model_type!r}.")
    matches, misses = [], []
    for family in FAMILIES if model_type is None else (BY_TYPE[model_type],):
        is_same_kind = family.is_encoder_decoder == isinstance(config, EncoderDecoderConfig)
        fields = _none_on_error(lambda family=family: family.write(config)) if is_same_kind else None
        kind = {"is_encoder_decoder": family.is_encoder_decoder}
        read_back = (
            None
            if fields is None
            else _none_on_error(lambda family=family, values=fields | kind: config_from_fields(family, values))
        )
        lost = ["the rule"] if read_back is None else _differing_fields(config, read_back)
        if lost:
            misses.append(((read_back is None, len(lost)), family.model_type, lost))
        else:
            matches.append((family, fields))
    if matches:
        return matches
    _, nearest, lost = min(misses, key=lambda miss: miss[0])
    raise ValueError(
        f"config: expected a model that {'some family' if model_type is None else model_type} of Hugging Face "
        f"computes, got fields that {nearest} cannot express: {', '.join(lost)}. Keep it as a run, or by "
        "training.Checkpoints."
    )


def _none_on_error(make: Callable[[], Any]) -> Any:
    """The result, or None where the family cannot express the config and says so by an error."""
    try:
        return make()
    except (ValueError, TypeError, LookupError):
        return None


def _differing_fields(config: Config, other: Config) -> list[str]:
    fields, other_fields = normalized_config(config), normalized_config(other)
    return [name for name in fields if fields[name] != other_fields[name]]


def normalized_config(config: Config) -> dict[str, Any]:
    """The fields that decide which function a model computes, defaults resolved: equal functions have equal fields.

    Fields of an encoder-decoder begin with `encoder.` or `decoder.`.
    """
    if isinstance(config, LMConfig):
        return _normalized_fields(config)
    stacks = {"encoder": config.encoder, "decoder": config.decoder}
    fields = {f"{stack}.{name}": x for stack, one in stacks.items() for name, x in _normalized_fields(one).items()}
    return fields | {"shared_embedding": config.shared_embedding}


def _normalized_fields(config: LMConfig) -> dict[str, Any]:
    fields = {
        field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name not in NEUTRAL
    }
    size, windows = config.resolved_head_size, tuple(config.window(layer) for layer in range(config.depth))
    places = ("qkv", "out", "feed_forward") + (("norm",) if config.norm == "layer" else ())
    fields |= {
        "final_norm": config.has_final_norm,
        "normalize": None if config.normalize == normalizers.softmax() else config.normalize,
        "kv_heads": config.resolved_kv_heads,
        "head_size": size,
        "ff_size": config.resolved_ff_size,
        "use_bias": [place for place in places if config.has_bias(place)],
        "windows": windows,
        "score": scores.scaled_dot(size**-0.5) if config.score in (None, scores.scaled_dot()) else config.score,
    }
    # Only layers with a window use the local rotary embedding.
    local = config.rope if config.local_rope is None or not any(windows) else config.local_rope
    is_rotary = config.position == "rotary"
    if config.position != "t5":
        fields |= {"t5_buckets": None, "t5_max_distance": None}
    return fields | {
        name: _normalized_rope(x, size) if is_rotary else None
        for name, x in (("rope", config.rope), ("local_rope", local))
    }


def _normalized_rope(rope: Rotary, head_size: int) -> Rotary:
    """The same rotary embedding, its size None where it is the whole head."""
    return rotary(style=rope.style, base=rope.base, scaling=rope.scaling) if rope.size == head_size else rope
