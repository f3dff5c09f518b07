"""LoRA adapters in the layout of PEFT: `adapter_config.json` beside `adapter_model.safetensors`.

PEFT has two factors for each of its linear layers; `factors.py` turns them into those of our kernels and back.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import check_instance, fail_unless
from jax_attention.core.numerics import compute_dtype
from jax_attention.core.tree_paths import arrays_by_path, list_problems
from jax_attention.interop.entries import Entry
from jax_attention.interop.factors import Factors, our_factors, their_factors
from jax_attention.interop.family import Family
from jax_attention.interop.fields import Fields
from jax_attention.interop.folder import (
    as_folder,
    make_folder,
    read_json,
    read_safetensors,
    write_json,
    write_safetensors,
)
from jax_attention.interop.hugging_face import expressions
from jax_attention.interop.layers import stacked, unstacked
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
"""Fields that say how adapters were made or found, not what they compute: the arrays are there by name."""


def load_adapters(model: TransformerLM | EncoderDecoder, path: str | Path, *, family: str | None = None) -> Adapters:
    """Adapters that PEFT saved, for the model that they were trained on.

        nn.apply_adapters(model, load_adapters(model, path))  =  PeftModel.from_pretrained(model, path)

    Args:
        model: the base model. Where its blocks are scanned, layers that PEFT left out or gave a smaller rank are filled
            up with zeros.
        path: the folder with `adapter_config.json` and `adapter_model.safetensors`.
        family: the `model_type` whose names the file has; None takes one that has the model and all the names.

    Returns:
        `nn.Adapters`, to go on training or to add to the model.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the config asks for more than LoRA (DoRA, biases, whole modules), or an array belongs nowhere.

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
    folder = as_folder(path)
    _check_base(model)
    for name in (CONFIG, WEIGHTS):
        fail_unless(
            (folder / name).is_file(), f"path: expected {name} in {str(folder)!r}, got none.", FileNotFoundError
        )
    scale_of, arrays = _scales(read_json(folder / CONFIG)), read_safetensors(folder / WEIGHTS)
    plain = jax.eval_shape(unroll_layers, model)
    kernels, down, up = arrays_by_path(plain), {}, {}
    chosen = _fitting(plain, family, arrays)
    _drop_bases(chosen, model, arrays)
    for entry in _kernels(chosen, plain):
        found = [_pop(arrays, _modules(chosen, name), scale_of) for name in entry.theirs]
        if any(x is not None for x in found):
            first, seconds = our_factors(entry, found, [kernels[name].shape for name in entry.ours])
            for name, second in zip(entry.ours, seconds, strict=True):
                dtype = compute_dtype(kernels[name].dtype)
                layer = name.removesuffix(KERNEL)
                down[layer], up[layer] = jnp.asarray(first, dtype), jnp.asarray(second, dtype)
    if arrays:
        raise ValueError(f"path: expected adapters of this model, got {list_problems({'unused': sorted(arrays)})}.")
    found = Adapters(down, up)
    if not model.config.scan:
        return found
    return stacked(found, {name: kernels[name + KERNEL].shape for name in down}, model.config)


def save_adapters(
    model: TransformerLM | EncoderDecoder,
    adapters: Adapters,
    path: str | Path,
    *,
    family: str | None = None,
    base: str | None = None,
) -> None:
    """Write adapters as PEFT does.

        PeftModel.from_pretrained(base, path)  =  nn.apply_adapters(model, adapters)

    Args:
        model: the base model, in the layout that the adapters were made for.
        adapters: of its linear layers.
        path: the folder to make.
        family: the `model_type` of the base model, which decides the names; None takes the first that has the model,
            so give it where several do: Phi 3 packs what Llama does not.
        base: name or folder of the base model, for `base_model_name_or_path`.

    Returns:
        Nothing.

    Raises:
        ValueError: if no Hugging Face family has the model, or an adapter belongs to no linear layer of it.
        FileExistsError: if there are adapters in the folder.

    Example:
        >>> import tempfile
        >>> from jax_attention import interop, models, nn
        >>> model = models.create(models.gpt2(vocab_size=19, width=8, depth=1, num_heads=2, scan=False))
        >>> interop.save_adapters(model, nn.lora(model, rank=2, rng=0), tempfile.mkdtemp())

    Reference:
        See `load_adapters`.
    """
    _check_base(model)
    check_instance("adapters", adapters, Adapters, "nn.Adapters", "Make them by nn.lora or interop.load_adapters.")
    check_instance("base", base, (str, os.PathLike, type(None)), "the name or folder of the base model, or None")
    folder, arrays, ranks, conv = as_folder(path), {}, {}, False
    taken = [name for name in (CONFIG, WEIGHTS) if (folder / name).exists()]
    fail_unless(not taken, f"path: expected a folder without adapters, got {', '.join(taken)}.", FileExistsError)
    jax.eval_shape(apply_adapters, model, adapters)  # which checks the shapes
    plain = jax.eval_shape(unroll_layers, model)
    if model.config.scan:
        adapters = unstacked(adapters, model.config)
    chosen, kernels, left = _families(plain, family)[0], arrays_by_path(plain), set(adapters.down)
    for entry in _kernels(chosen, plain):
        layers = [name.removesuffix(KERNEL) for name in entry.ours]
        if left.isdisjoint(layers):
            continue
        left -= set(layers)
        given = [(adapters.down[x], adapters.up[x]) if x in adapters.down else None for x in layers]
        first, seconds = their_factors(entry, given, [kernels[name].shape for name in entry.ours])
        conv |= entry.upright
        for name, second in zip(entry.theirs, seconds, strict=True):
            module = _modules(chosen, name)[0]
            arrays[f"{PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(first.T)
            arrays[f"{PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(second)
            ranks[module] = first.shape[-1]
    fail_unless(not left, f"adapters: expected linear layers of the model, got {', '.join(sorted(left))}.")
    make_folder(folder)
    write_safetensors(folder / WEIGHTS, arrays)
    write_json(folder / CONFIG, _config(ranks, adapters.scale, conv, None if base is None else str(base), chosen.task))


# --- Names ------------------------------------------------------------------------------------------------------------


def _check_base(model: Any) -> None:
    check_instance("model", model, (TransformerLM, EncoderDecoder), "a models.TransformerLM or EncoderDecoder")
    fail_unless(
        not (model.config.scan and isinstance(model, EncoderDecoder)),
        "model: expected an encoder-decoder with single blocks, got scanned ones. Unroll it: "
        "models.unroll_layers(model).",
    )


def _families(model: TransformerLM | EncoderDecoder, name: str | None) -> list[Family]:
    return [family for family, _ in expressions(model.config, name)]


def _fitting(model: TransformerLM | EncoderDecoder, name: str | None, arrays: Mapping[str, np.ndarray]) -> Family:
    """The first family that has a layer for every array, or else the first."""
    families = _families(model, name)
    layers = {array.removeprefix(PREFIX).split(".lora_")[0].removesuffix(BASE) for array in arrays}
    for family in families:
        known = {x for entry in _kernels(family, model) for weight in entry.theirs for x in _modules(family, weight)}
        if layers <= known:
            return family
    return families[0]


def _drop_bases(family: Family, model: TransformerLM | EncoderDecoder, arrays: dict[str, np.ndarray]) -> None:
    """PEFT saves an adapted head's own weights as well; they must be those of the model."""
    weights = arrays_by_path(model)
    for name in [name for name in arrays if name.endswith(BASE)]:
        module = name.removeprefix(PREFIX).removesuffix(BASE)
        entry = next((e for e in _kernels(family, model) if module in _modules(family, e.theirs[0])), None)
        if entry is not None and weights.keys() >= set(entry.ours):
            own = entry.to_theirs([np.asarray(weights[x]) for x in entry.ours])[0]
            if np.array_equal(own, arrays[name]):
                del arrays[name]


def _modules(family: Family, weight: str) -> list[str]:
    """Names of a linear layer in memory: the present one first, then that of its weight in files, as it was once."""
    name = weight.removesuffix(".weight")
    return list(dict.fromkeys((family.in_memory.get(name, name), name)))


def _kernels(family: Family, model: TransformerLM) -> list[Entry]:
    return [entry for entry in family.entries(model.config) if entry.ours[0].endswith(KERNEL)]


def _pop(arrays: dict[str, np.ndarray], modules: Sequence[str], scale_of: Any) -> Factors | None:
    """Both factors of one of their layers, taken out; the scale goes into the second."""
    for module in modules:
        names = [f"{PREFIX}{module}.lora_{x}.weight" for x in "AB"]
        there = [name for name in names if name in arrays]
        if there:
            fail_unless(len(there) == 2, f"path: expected both factors of {module}, got only {', '.join(there)}.")
            a, b = (np.asarray(arrays.pop(name)) for name in names)
            return a, b.astype(np.result_type(b.dtype, np.float32)) * np.float32(scale_of(module, a.shape[0]))
    return None


# --- adapter_config.json ---------------------------------------------------------------------------------------------


def _scales(config: Mapping[str, Any]) -> Any:
    """A function from a module and its rank to `alpha / rank`; whatever is not plain LoRA is refused."""
    fields = Fields(config)
    for name in IGNORED:
        fields.take(name, None)
    fields.expect("peft_type", "LORA")
    fields.expect("bias", "none")
    fields.expect("init_lora_weights", True, False, None, "gaussian", "orthogonal")  # others change the base as well
    for name in ("use_dora", "lora_bias", "use_qalora"):
        fields.expect(name, False)
    alpha, root = fields.take("lora_alpha"), fields.take("use_rslora", False)
    alphas = fields.take("alpha_pattern", None) or {}
    for name in ("r", "rank_pattern"):
        fields.take(name, None)
    left = [name for name in fields.unread() if config[name]]
    fail_unless(
        not left, f"{CONFIG}: expected plain LoRA, got also {', '.join(left)}, which this library does not read."
    )

    def scale(module: str, rank: int) -> float:
        own = next((x for key, x in alphas.items() if re.match(rf"(.*\.)?({key})$", module)), alpha)
        return own / (rank**0.5 if root else rank)

    return scale


def _config(ranks: Mapping[str, int], scale: float, conv: bool, base: str | None, task: str | None) -> dict[str, Any]:
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {module: rank for module, rank in ranks.items() if rank != usual}
    return {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "r": usual,
        "lora_alpha": scale * usual,
        "rank_pattern": others,
        "alpha_pattern": {module: scale * rank for module, rank in others.items()},
        "target_modules": sorted(ranks),
        "fan_in_fan_out": conv,
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
    }
