"""LoRA adapters in the layout of PEFT: a folder with `adapter_config.json` and `adapter_model.safetensors`.

PEFT has two factors for each of its linear layers and tables; `lora_factors.py` converts them to and from those of the
kernels here. It may save more with them: magnitudes (DoRA), biases, and whole modules.
"""

from __future__ import annotations

import os
from pathlib import Path

import jax

from jax_attention.core.checks import check_instance, fail_unless
from jax_attention.core.foreign_files import read_json
from jax_attention.core.tree_paths import list_problems
from jax_attention.interop.hf.adapter_base import BaseModel, check_base, families_of, family_with_layers, weight_of
from jax_attention.interop.hf.adapter_config import CONFIG, adapter_config_json, read_adapter_config
from jax_attention.interop.hf.adapter_file import KERNEL, AdapterFile
from jax_attention.interop.hf.adapter_reader import read_factors, read_replaced
from jax_attention.interop.hf.adapter_writer import AdapterWriter
from jax_attention.interop.hf.canonical_weights import without_wrappers
from jax_attention.interop.hf.folder import (
    MAX_CONFIG_BYTES,
    check_folder,
    make_folder,
    write_json,
    write_safetensors,
)
from jax_attention.interop.hf.lora_factors import column_lengths
from jax_attention.interop.hf.scanned_adapters import stack_adapters, unstack_adapters
from jax_attention.interop.hf.stored_weights import check_floats, open_safetensors
from jax_attention.models import EncoderDecoder, TransformerLM
from jax_attention.nn import Adapters, apply_adapters

WEIGHTS = "adapter_model.safetensors"


def load_adapters(model: TransformerLM | EncoderDecoder, path: str | Path, *, family: str | None = None) -> Adapters:
    """Load adapters that PEFT saved, for the model that they were trained on.

        nn.apply_adapters(model, load_adapters(model, path))  =  PeftModel.from_pretrained(model, path)

    Args:
        model: the base model. If its blocks are scanned, layers that PEFT left out or gave a smaller rank are padded
            with zeros. If the adapters change its embedding and not its head, or the other way round, it needs a head
            of its own: `models.untie_head(model)`.
        path: the folder with `adapter_config.json` and `adapter_model.safetensors`.
        family: the `model_type` whose layer names the file uses; None takes one that has the model and all the names.

    Returns:
        `nn.Adapters`, to train further or to apply to the model: LoRA or DoRA of linear layers and tables, biases
        (`bias="lora_only"` or `"all"`), and the modules of `modules_to_save`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the config asks for something else, or an array belongs to no layer of the model.

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
    check_base(model)
    for name in (CONFIG, WEIGHTS):
        fail_unless(
            (folder / name).is_file(), f"path: expected {name} in {str(folder)!r}, got none.", FileNotFoundError
        )
    config = read_adapter_config(read_json(folder / CONFIG, MAX_CONFIG_BYTES))
    stored = without_wrappers(open_safetensors(folder / WEIGHTS))
    check_floats(stored)
    file, base = AdapterFile({name: x.read() for name, x in stored.items()}, config), BaseModel(model)
    file.drop_wrapped_biases()
    chosen = family_with_layers(base, family, file.layers())
    mappings = chosen.weight_mappings(base.config)
    file.drop_copies(lambda layer: weight_of(layer, chosen, mappings, base))
    if chosen.copies is not None:
        file.drop_tied_biases(chosen.copies(base.config))
    if base.is_tied:
        file.drop_tied_head(chosen, base.config)
    adapters = Adapters({}, {}, 1.0, {} if config.has_magnitudes else None, {})
    for mapping in mappings:
        read_replaced(mapping, chosen, file, base, adapters)
        read_factors(mapping, chosen, file, base, adapters)
    if file.arrays:
        raise ValueError(
            f"path: expected adapters of this model, got {list_problems({'unused': sorted(file.arrays)})}."
        )
    adapters = Adapters(adapters.down, adapters.up, 1.0, adapters.magnitude, adapters.replaced or None)
    if not model.config.scan:
        return adapters
    shapes = {name.removesuffix(KERNEL): x.shape for name, x in base.shapes.items()}
    return stack_adapters(
        adapters,
        shapes,
        model.config,
        lambda layer: column_lengths(base.numpy((layer + KERNEL,), adapters.replaced)[0]),
        lambda name: base.arrays[name],
    )


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
        adapters: of its linear layers and tables; what they replace is written as a bias of an adapted layer or as a
            whole module.
        path: the folder to make.
        family: the `model_type` of the base model, which decides the names of layers; None takes the first that has the
            model. Name it if several do: Phi 3 packs projections that Llama keeps apart.
        base: name or folder of the base model, for `base_model_name_or_path`.

    Raises:
        ValueError: if no Hugging Face family has the model, an adapter belongs to no layer of it, or PEFT has no place
            for an array.
        FileExistsError: if there are adapters in the folder.

    Example:
        >>> import tempfile
        >>> from jax_attention import interop, models, nn
        >>> model = models.create(models.gpt2(vocab_size=19, width=8, depth=1, num_heads=2, scan=False))
        >>> interop.save_adapters(model, nn.lora(model, rank=2, rng=0), tempfile.mkdtemp())
    """
    check_base(model)
    check_instance("adapters", adapters, Adapters, "nn.Adapters", "Make them by nn.lora or interop.load_adapters.")
    check_instance("base", base, (str, os.PathLike, type(None)), "the name or folder of the base model, or None")
    folder = check_folder(path)
    taken = [name for name in (CONFIG, WEIGHTS) if (folder / name).exists()]
    fail_unless(not taken, f"path: expected a folder without adapters, got {', '.join(taken)}.", FileExistsError)
    jax.eval_shape(apply_adapters, model, adapters)  # checks names and shapes without computing
    of_base = BaseModel(model)
    if model.config.scan:
        adapters = unstack_adapters(adapters, model.config)
    writer = AdapterWriter(families_of(of_base, family)[0], of_base, adapters)
    writer.write_factors()
    writer.write_replaced()
    make_folder(folder)
    write_safetensors(folder / WEIGHTS, writer.arrays)
    fields = writer.fields() | {"base_model_name_or_path": None if base is None else str(base)}
    write_json(folder / CONFIG, adapter_config_json(writer.ranks, writer.whole_modules, adapters.scale, **fields))
