"""LoRA adapters in the layout of PEFT: a folder with `adapter_config.json` and `adapter_model.safetensors`.

PEFT has two factors for each of its linear layers; `lora_factors.py` converts them to and from those of the kernels
here.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import check_instance, describe_array, fail_unless
from jax_attention.core.foreign_files import read_json
from jax_attention.core.numerics import compute_dtype
from jax_attention.core.text import list_names, quote
from jax_attention.core.tree_paths import arrays_by_path, list_problems
from jax_attention.interop.hf.config import matching_families
from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.family import Family
from jax_attention.interop.hf.folder import (
    MAX_CONFIG_BYTES,
    check_folder,
    make_folder,
    write_json,
    write_safetensors,
)
from jax_attention.interop.hf.lora_factors import Factors, to_jax_factors, to_peft_factors
from jax_attention.interop.hf.scanned_adapters import stack_adapters, unstack_adapters
from jax_attention.interop.hf.stored_weights import check_floats, open_safetensors
from jax_attention.interop.weight_mapping import WeightMapping
from jax_attention.models import EncoderDecoder, TransformerLM, unroll_layers
from jax_attention.nn import Adapters, apply_adapters

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX, KERNEL, BASE = "base_model.model.", ".kernel", ".base_layer.weight"
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
]
"""Fields that configure how adapters were made, not what they compute: which layers have some is in the array names."""


def load_adapters(model: TransformerLM | EncoderDecoder, path: str | Path, *, family: str | None = None) -> Adapters:
    """Load adapters that PEFT saved, for the model that they were trained on.

        nn.apply_adapters(model, load_adapters(model, path))  =  PeftModel.from_pretrained(model, path)

    Args:
        model: the base model. If its blocks are scanned, layers that PEFT left out or gave a smaller rank are padded
            with zeros.
        path: the folder with `adapter_config.json` and `adapter_model.safetensors`.
        family: the `model_type` whose layer names the file uses; None takes one that has the model and all the names.

    Returns:
        `nn.Adapters`, to train further or to apply to the model.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the config asks for more than LoRA (DoRA, biases, whole modules), or an array belongs to
            no layer of the model.

    Example:
        >>> import tempfile
        >>> from jax_attention import interop, models, nn
        >>> model = models.create(models.llama(vocab_size=19, width=8, depth=1, num_heads=2, kv_heads=1, scan=False))
        >>> folder = tempfile.mkdtemp()
        >>> interop.save_adapters(model, nn.lora(model, rank=2, rng=0), folder)
        >>> list(interop.load_adapters(model, folder).down)
        ['blocks.rest.0.attention.projections.joined']

    Reference:
        https://huggingface.co/docs/peft/package_reference/lora
    """
    folder = check_folder(path)
    _check_base(model)
    for name in (CONFIG, WEIGHTS):
        fail_unless(
            (folder / name).is_file(), f"path: expected {name} in {str(folder)!r}, got none.", FileNotFoundError
        )
    scale_of, stored = _scale_function(read_json(folder / CONFIG, MAX_CONFIG_BYTES)), open_safetensors(folder / WEIGHTS)
    check_floats(stored)
    arrays = {name: x.read() for name, x in stored.items()}
    unrolled = jax.eval_shape(unroll_layers, model)
    kernels, down, up = arrays_by_path(unrolled), {}, {}
    chosen = _family_with_names(unrolled, family, arrays)
    _drop_base_weights(chosen, model, arrays)
    for mapping in _kernel_mappings(chosen, unrolled):
        factors = [_pop_factors(arrays, _layer_names(chosen, name), scale_of) for name in mapping.torch_names]
        if any(x is not None for x in factors):
            first, seconds = to_jax_factors(mapping, factors, [kernels[name].shape for name in mapping.jax_names])
            for name, second in zip(mapping.jax_names, seconds, strict=True):
                dtype = compute_dtype(kernels[name].dtype)
                layer = name.removesuffix(KERNEL)
                down[layer], up[layer] = jnp.asarray(first, dtype), jnp.asarray(second, dtype)
    if arrays:
        raise ValueError(f"path: expected adapters of this model, got {list_problems({'unused': sorted(arrays)})}.")
    adapters = Adapters(down, up)
    if not model.config.scan:
        return adapters
    return stack_adapters(adapters, {name: kernels[name + KERNEL].shape for name in down}, model.config)


def save_adapters(
    model: TransformerLM | EncoderDecoder,
    adapters: Adapters,
    path: str | Path,
    *,
    family: str | None = None,
    base: str | None = None,
) -> None:
    """Write adapters as PEFT writes them.

        PeftModel.from_pretrained(base, path)  =  nn.apply_adapters(model, adapters)

    Args:
        model: the base model, in the layout that the adapters were made for.
        adapters: of its linear layers.
        path: the folder to make.
        family: the `model_type` of the base model, which decides the names of layers; None takes the first that has the
            model. Name it if several do: Phi 3 packs projections that Llama keeps apart.
        base: name or folder of the base model, for `base_model_name_or_path`.

    Raises:
        ValueError: if no Hugging Face family has the model, or an adapter belongs to no linear layer of it.
        FileExistsError: if there are adapters in the folder.

    Example:
        >>> import tempfile
        >>> from jax_attention import interop, models, nn
        >>> model = models.create(models.gpt2(vocab_size=19, width=8, depth=1, num_heads=2, scan=False))
        >>> interop.save_adapters(model, nn.lora(model, rank=2, rng=0), tempfile.mkdtemp())
    """
    _check_base(model)
    check_instance("adapters", adapters, Adapters, "nn.Adapters", "Make them by nn.lora or interop.load_adapters.")
    check_instance("base", base, (str, os.PathLike, type(None)), "the name or folder of the base model, or None")
    folder, arrays, ranks, has_conv1d = check_folder(path), {}, {}, False
    taken = [name for name in (CONFIG, WEIGHTS) if (folder / name).exists()]
    fail_unless(not taken, f"path: expected a folder without adapters, got {', '.join(taken)}.", FileExistsError)
    jax.eval_shape(apply_adapters, model, adapters)  # checks names and shapes without computing
    unrolled = jax.eval_shape(unroll_layers, model)
    if model.config.scan:
        adapters = unstack_adapters(adapters, model.config)
    chosen, kernels, left = _families(unrolled, family)[0], arrays_by_path(unrolled), set(adapters.down)
    for mapping in _kernel_mappings(chosen, unrolled):
        layers = [name.removesuffix(KERNEL) for name in mapping.jax_names]
        if left.isdisjoint(layers):
            continue
        left -= set(layers)
        factors = [(adapters.down[x], adapters.up[x]) if x in adapters.down else None for x in layers]
        first, seconds = to_peft_factors(mapping, factors, [kernels[name].shape for name in mapping.jax_names])
        has_conv1d |= mapping.is_conv1d
        for name, second in zip(mapping.torch_names, seconds, strict=True):
            layer = _layer_names(chosen, name)[0]
            arrays[f"{PREFIX}{layer}.lora_A.weight"] = np.ascontiguousarray(first.T)
            arrays[f"{PREFIX}{layer}.lora_B.weight"] = np.ascontiguousarray(second)
            ranks[layer] = first.shape[-1]
    fail_unless(not left, f"adapters: expected linear layers of the model, got {', '.join(sorted(left))}.")
    make_folder(folder)
    write_safetensors(folder / WEIGHTS, arrays)
    base = None if base is None else str(base)
    write_json(folder / CONFIG, _peft_config(ranks, adapters.scale, has_conv1d, base, chosen.peft_task))


# --- Names -----------------------------------------------------------------------------------------------------------


def _check_base(model: Any) -> None:
    check_instance("model", model, (TransformerLM, EncoderDecoder), "a models.TransformerLM or EncoderDecoder")
    fail_unless(
        not (model.config.scan and isinstance(model, EncoderDecoder)),
        "model: expected an encoder-decoder with single blocks, got scanned ones. Unroll it: "
        "models.unroll_layers(model).",
    )


def _families(model: TransformerLM | EncoderDecoder, model_type: str | None) -> list[Family]:
    return [family for family, _ in matching_families(model.config, model_type)]


def _family_with_names(
    model: TransformerLM | EncoderDecoder, model_type: str | None, arrays: Mapping[str, np.ndarray]
) -> Family:
    """The first family that has a layer for every array, or else the first: loading then reports what is unused."""
    families = _families(model, model_type)
    layers = {array.removeprefix(PREFIX).split(".lora_")[0].removesuffix(BASE) for array in arrays}
    for family in families:
        known = {
            layer
            for mapping in _kernel_mappings(family, model)
            for weight in mapping.torch_names
            for layer in _layer_names(family, weight)
        }
        if layers <= known:
            return family
    return families[0]


def _drop_base_weights(family: Family, model: TransformerLM | EncoderDecoder, arrays: dict[str, np.ndarray]) -> None:
    """Remove copies of base weights from the arrays: PEFT saves those of an adapted head. A weight that differs from
    the model's stays, and is then reported as unused.
    """
    weights = arrays_by_path(model)
    for name in [name for name in arrays if name.endswith(BASE)]:
        layer = name.removeprefix(PREFIX).removesuffix(BASE)
        mapping = next(
            (m for m in _kernel_mappings(family, model) if layer in _layer_names(family, m.torch_names[0])), None
        )
        if mapping is not None and weights.keys() >= set(mapping.jax_names):
            base = mapping.to_torch([np.asarray(weights[x]) for x in mapping.jax_names])[0]
            if np.array_equal(base, arrays[name]):
                del arrays[name]


def _layer_names(family: Family, weight: str) -> list[str]:
    """Names that a linear layer has in PEFT files: that in memory of transformers 5 first, then that of its weight."""
    name = weight.removesuffix(".weight")
    return list(dict.fromkeys((family.names_in_memory.get(name, name), name)))


def _kernel_mappings(family: Family, model: TransformerLM | EncoderDecoder) -> list[WeightMapping]:
    return [mapping for mapping in family.weight_mappings(model.config) if mapping.jax_names[0].endswith(KERNEL)]


def _pop_factors(
    arrays: dict[str, np.ndarray], layers: Sequence[str], scale_of: Callable[[str, int], float]
) -> Factors | None:
    """Remove both factors of a PEFT layer from the arrays, under one of its names. The second includes the scale."""
    for layer in layers:
        names = [f"{PREFIX}{layer}.lora_{x}.weight" for x in "AB"]
        present = [name for name in names if name in arrays]
        if present:
            fail_unless(len(present) == 2, f"path: expected both factors of {layer}, got only {', '.join(present)}.")
            a, b = (np.asarray(arrays.pop(name)) for name in names)
            fail_unless(
                a.ndim == b.ndim == 2 and len(a) > 0,
                f"path: expected factors [r, D] and [F, r] of {layer}, got {describe_array(a)}, {describe_array(b)}.",
            )
            return a, b.astype(np.result_type(b.dtype, np.float32)) * np.float32(scale_of(layer, a.shape[0]))
    return None


# --- adapter_config.json ---------------------------------------------------------------------------------------------


def _scale_function(config: Mapping[str, Any]) -> Callable[[str, int], float]:
    """The function from a layer and its rank to `alpha / rank`. A config that is not plain LoRA is an error."""
    fields = ConfigFields(config, CONFIG)
    fields.ignore(*IGNORED)
    fields.expect("peft_type", "LORA")
    fields.expect("bias", "none")
    # Other initialisations (PiSSA, OLoRA) change the base weights as well.
    fields.expect("init_lora_weights", True, False, None, "gaussian", "orthogonal")
    for name in ("use_dora", "lora_bias", "use_qalora"):
        fields.expect(name, False)
    alpha, use_root = fields.take("lora_alpha"), fields.take("use_rslora", False)
    alphas = {_layer_pattern(key): x for key, x in (fields.take("alpha_pattern", None) or {}).items()}
    fields.ignore("r", "rank_pattern")
    left = [name for name in fields.unread() if config[name]]
    fail_unless(
        not left, f"{CONFIG}: expected plain LoRA, got also {list_names(left)}, which this library does not read."
    )

    def scale(layer: str, rank: int) -> float:
        layer_alpha = next((x for pattern, x in alphas.items() if pattern.match(layer)), alpha)
        return layer_alpha / (rank**0.5 if use_root else rank)

    return scale


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


def _peft_config(
    ranks: Mapping[str, int], scale: float, has_conv1d: bool, base: str | None, task: str | None
) -> dict[str, Any]:
    """`adapter_config.json`: the commonest rank as `r`, patterns for layers that have another one."""
    rank = Counter(ranks.values()).most_common(1)[0][0]
    others = {layer: other for layer, other in ranks.items() if other != rank}
    return {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": scale * rank,
        "rank_pattern": others,
        "alpha_pattern": {layer: scale * other for layer, other in others.items()},
        "target_modules": sorted(ranks),
        "fan_in_fan_out": has_conv1d,
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
    }
