"""Names that the fields of a config choose among, and checks of all fields of `LMConfig`."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax

from jax_attention import masks, mods, normalizers, scores
from jax_attention.core.checks import check_int, fail_unless
from jax_attention.core.part_checks import check_part
from jax_attention.core.text import quote
from jax_attention.nn.feed_forward import ACTIVATIONS
from jax_attention.nn.part_module import PartModule
from jax_attention.normalizers import Softmax
from jax_attention.positions import Rotary

Position = Literal["learned", "sinusoidal", "sinusoidal_half", "rotary", "alibi", "t5", "none"]
Norm = Literal["layer", "rms"]
NormPlace = Literal["pre", "post", "sandwich", "after", "parallel"]
BiasPlace = Literal["qkv", "out", "feed_forward", "norm"]
Remat = Literal["none", "dots", "full"]
Cell = Literal["gru", "lstm"]
Dtype = Literal["float32", "bfloat16", "float16", "float64"]

SWITCHES = (
    "use_bias",
    "tied_head",
    "qk_norm",
    "scale_embedding",
    "embedding_norm",
    "scale_by_layer",
    "head_transform",
    "head_bias",
    "sinks",
    "train_rule",
    "scan",
)


MAX_SIZE = 2**31 - 1
"""Largest size: token ids and indices are 32-bit integers."""
MAX_FLOAT = 3.4e38
"""Largest number; in float32 larger ones are infinite."""


def check_size(name: str, x: Any, least: int, cure: str) -> None:
    """Check a size of a model: an integer that is not larger than indices are."""
    check_int(name, x, least, cure)
    fail_unless(x <= MAX_SIZE, f"{name}: expected at most {MAX_SIZE:,}, got {x:,}. Indices have 32 bits.")


def check_config(config: Any) -> None:
    """Check all fields: a config that passes can be made into a model."""
    _check_names(config)
    _check_sizes(config)
    _check_numbers(config)
    _check_rule(config)


def _check_sizes(config: Any) -> None:
    ropes = {"rope": config.rope} | ({} if config.local_rope is None else {"local_rope": config.local_rope})
    for name, rope in ropes.items():
        fail_unless(isinstance(rope, Rotary), f"{name}: expected positions.rotary(...), got {quote(rope)}.", TypeError)
    for name in ("vocab_size", "context", "width", "depth", "num_heads"):
        check_size(name, getattr(config, name), 1, "Sizes of a model are static.")
    check_size("token_types", config.token_types, 0, "0 is no table of types.")
    _check_buckets(config)
    for name in ("kv_heads", "head_size", "ff_size", "memory_size"):
        if getattr(config, name) is not None:
            check_size(name, getattr(config, name), 1, "None takes the default.")
    fail_unless(
        config.num_heads % config.resolved_kv_heads == 0,
        f"kv_heads: expected a divisor of num_heads = {config.num_heads}, got {config.kv_heads}.",
    )
    fail_unless(
        config.head_size is not None or config.width % config.num_heads == 0,
        f"num_heads: expected a divisor of width = {config.width}, got {config.num_heads}. Or give head_size.",
    )
    for name, rope in ropes.items():
        rotated = config.resolved_head_size if rope.size is None else rope.size
        fail_unless(
            config.position != "rotary" or rotated % 2 == 0,
            f"head_size: expected an even size for position='rotary', got {rotated}. Rotate fewer features: "
            f"{name}=positions.rotary(size=...).",
        )
    fail_unless(
        not config.position.startswith("sinusoidal") or config.width % 2 == 0,
        f"width: expected an even size for position={config.position!r}, got {config.width}.",
    )


def _check_buckets(config: Any) -> None:
    for name in ("t5_buckets", "t5_max_distance"):
        check_size(name, getattr(config, name), 1, "T5 has 32 buckets up to distance 128.")
    if config.position == "t5":
        directions = 2 if config.sees_future() else 1
        single = config.t5_buckets // (2 * directions)  # buckets of a single distance, half of those of a direction
        fail_unless(
            0 < single < config.t5_max_distance,
            f"t5_buckets: expected from {2 * directions} to less than {2 * directions} t5_max_distance, got "
            f"{config.t5_buckets} buckets and t5_max_distance = {config.t5_max_distance}. T5 has 32 and 128.",
        )


def _check_numbers(config: Any) -> None:
    rates, sizes = ("dropout", "attention_dropout"), ("norm_epsilon", "logit_scale", "score_cap", "logit_cap")
    for name in (*rates, *sizes):
        x = getattr(config, name)
        if x is None and name.endswith("cap"):
            continue
        is_number = isinstance(x, (int, float)) and not isinstance(x, bool)
        fail_unless(is_number, f"{name}: expected a Python number, got {quote(x)}. It is static under jit.", TypeError)
        if name in rates:
            fail_unless(0 <= x < 1, f"{name}: expected 0 <= rate < 1, got {x}. 0 switches it off.")
        else:
            cure = "The default is 1e-5." if name == "norm_epsilon" else "Leave it out to switch it off."
            fail_unless(x > 0, f"{name}: expected a positive number, got {x}. {cure}")
            fail_unless(x <= MAX_FLOAT, f"{name}: expected at most {MAX_FLOAT}, got {x}. {cure}")
    fail_unless(
        config.final_norm is None or isinstance(config.final_norm, bool),
        f"final_norm: expected True, False or None, got {quote(config.final_norm)}. None is True unless post-norm.",
        TypeError,
    )
    for name in SWITCHES:
        x = getattr(config, name)
        if isinstance(x, tuple) and name == "use_bias":
            places = get_args(BiasPlace)
            wrong = [place for place in x if place not in places]
            fail_unless(not wrong, f"use_bias: expected places among {', '.join(places)}, got {quote(wrong)}.")
        elif not (name == "qk_norm" and isinstance(x, str) and x == "all_heads"):
            alternative = {"use_bias": " or a tuple of places", "qk_norm": " or 'all_heads'"}.get(name, "")
            fail_unless(isinstance(x, bool), f"{name}: expected True or False{alternative}, got {quote(x)}.", TypeError)


def _check_names(config: Any) -> None:
    choices = {
        "activation": tuple(ACTIVATIONS),
        "position": get_args(Position),
        "norm": get_args(Norm),
        "norm_place": get_args(NormPlace),
        "remat": get_args(Remat),
        "dtype": get_args(Dtype),
        "param_dtype": get_args(Dtype),
    }
    for name, names in choices.items():
        got = getattr(config, name)
        is_known = isinstance(got, str) and got in names
        fail_unless(is_known, f"{name}: expected one of {', '.join(names)}, got {quote(got)}.")
    for name in ("param_dtype", "dtype"):
        fail_unless(
            getattr(config, name) != "float64" or jax.config.jax_enable_x64,
            f'{name}: expected x64 mode for float64. Call jax.config.update("jax_enable_x64", True) first.',
        )


def is_part_module(part: Any) -> bool:
    """Whether a part of a config is a class of modules, of which each layer makes its own."""
    return isinstance(part, type) and issubclass(part, PartModule)


def _check_rule(config: Any) -> None:
    for name, module in (("score", scores), ("normalize", normalizers), ("mask", masks)):
        part = getattr(config, name)
        if part is not None and not (is_part_module(part) and name != "mask"):
            check_part(name, part, module.CATALOGUE, "Leave it out for the default.")
    fail_unless(
        isinstance(config.mods, tuple),
        f"mods: expected a tuple of mods, got {quote(config.mods)}. One is (m,).",
        TypeError,
    )
    for mod in config.mods:
        if not is_part_module(mod):
            check_part("mod", mod, mods.CATALOGUE, "mods is a tuple: mods=(mods.alibi(slopes),).")
    fail_unless(
        isinstance(config.windows, tuple) and len(config.windows) > 0,
        f"windows: expected a tuple of sizes or None, got {quote(config.windows)}. (None,) is full attention.",
        TypeError,
    )
    for window in config.windows:
        if window is not None:
            check_int("windows", window, 1, "A window counts the query itself.")
    fail_unless(
        config.memory_size is None or config.norm_place != "parallel",
        "memory_size: expected None with norm_place='parallel', whose two layers read one stream. Use another place.",
    )
    is_softmax = config.normalize is None or config.normalize == Softmax()
    fail_unless(
        is_softmax or not config.sinks,
        f"sinks: expected the plain softmax with it, got normalize={config.normalize!r}. Put sinks into the "
        "normalizer: normalize=normalizers.softmax(sinks), train_rule=True.",
    )
