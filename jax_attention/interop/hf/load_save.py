"""Language models from and to Hugging Face folders. Nothing is guessed: what is missing or left over is an error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_attention import models
from jax_attention.core.checks import check_instance, check_int
from jax_attention.core.tree_paths import arrays_by_path, replace_arrays
from jax_attention.interop.hf.config import matching_families
from jax_attention.interop.hf.config_fields import HARMLESS
from jax_attention.interop.hf.folder import MAX_SHARD_BYTES, check_folder, write_folder
from jax_attention.interop.hf.opened_model import open_model
from jax_attention.interop.hf.stored_weights import Numbers
from jax_attention.interop.weight_mapping import to_jax_arrays, to_torch_arrays
from jax_attention.models import EncoderDecoder, TransformerLM

NO_TOKEN_IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
"""Written as null unless the caller names them: families have default ids, which are those of another tokenizer."""


def load(
    path: str | Path,
    *,
    dtype: Any = None,
    param_dtype: Any = None,
    scan: bool = False,
    allow_pickle: bool = False,
    ignore_fields: Sequence[str] = (),
) -> TransformerLM | EncoderDecoder:
    """Load a model from a Hugging Face folder: `config.json` and safetensors.

        load(path)(tokens).logits  =  AutoModelForCausalLM.from_pretrained(path)(tokens).logits

    The same holds for masked language models, and for encoder-decoders with `load(path)(source, target)`.

    Args:
        path: the folder, on this machine; nothing is downloaded.
        dtype: to compute in, by name or as a dtype of JAX; that of the parameters if None.
        param_dtype: of the parameters; as stored if None, the widest where they differ.
        scan: stack the blocks and run them by `lax.scan`.
        allow_pickle: read `pytorch_model.bin` where there are no safetensors, by `torch.load(weights_only=True)`.
        ignore_fields: names of fields of `config.json` to read as if they were not there. A field that this library
            does not know is an error, since it might change what the model computes: name those that do not.

    Returns:
        A `models.TransformerLM` of the families GPT-2, GPT-NeoX (Pythia), Llama, Mistral, Qwen 2 and 3, Gemma 1, 2 and
        3 (text), Phi 3, OLMo 2, and the encoders BERT, RoBERTa, DistilBERT; or a `models.EncoderDecoder`: T5, BART,
        Marian. Heads of other tasks (BERT's pooler and next sentence) are not read. A folder of a bare encoder gives
        its `hidden` states; its logits have no meaning. The tokenizer is `data.load_tokenizer(path)`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the family is unknown, a field of the config is not understood or out of range, or an array is
            missing, left over, misshapen or not of floats; the message lists them. Headers are compared with the
            config before anything is built or read.
        ImportError: if safetensors is not installed.

    Example:
        >>> import tempfile
        >>> from jax_attention import interop, models
        >>> folder = tempfile.mkdtemp()
        >>> interop.save(models.create(models.gpt2(vocab_size=19, context=8, width=12, depth=1, num_heads=3)), folder)
        'gpt2'
        >>> interop.load(folder, scan=True).config.activation
        'gelu_tanh'

    Reference:
        https://github.com/huggingface/transformers/issues/38758: the end of Flax in transformers.
    """
    folder = check_folder(path)
    check_instance("scan", scan, bool, "True or False")
    dtype, param_dtype = _dtype_name(dtype), _dtype_name(param_dtype)
    family, abstract, stored, expectation = open_model(
        folder, dtype=dtype, param_dtype=param_dtype, allow_pickle=allow_pickle, ignore_fields=ignore_fields
    )
    config = abstract.config
    arrays = to_jax_arrays(family.weight_mappings(config), Numbers(stored), expectation)
    cast = {name: jnp.asarray(np.ascontiguousarray(x), config.param_dtype) for name, x in arrays.items()}
    model = replace_arrays(abstract, cast, expectation)
    return models.scan_layers(model) if scan else model


def save(
    model: TransformerLM | EncoderDecoder,
    path: str | Path,
    *,
    family: str | None = None,
    fields: Mapping[str, Any] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> str:
    """Write a model as a folder that `transformers` loads.

        AutoModelForCausalLM.from_pretrained(path)(tokens).logits  =  model(tokens).logits

    Args:
        model: scanned or not.
        path: the folder to make; a model that is already there is not overwritten.
        family: a `model_type` such as "llama"; None takes the first that can express the config.
        fields: to add to `config.json`: token ids and whatever else does not change the logits, such as
            `{"eos_token_id": 2}`. Token ids are null by default.
        max_shard_bytes: larger models are written in several files.

    Returns:
        The `model_type` of the folder.

    Raises:
        ValueError: if no family, or not this one, computes what the config says; the message names the fields. Also
            if an added field would change the logits.
        FileExistsError: if there is a model in the folder.
        ImportError: if safetensors is not installed.

    Example:
        >>> import tempfile
        >>> from jax_attention import interop, models
        >>> config = models.llama(vocab_size=19, context=8, width=8, depth=2, num_heads=2, kv_heads=1, ff_size=12)
        >>> folder = tempfile.mkdtemp()
        >>> interop.save(models.create(config), folder)
        'llama'
        >>> interop.load(folder).config.kv_heads
        1

    Reference:
        https://huggingface.co/docs/safetensors
    """
    check_instance(
        "model",
        model,
        (TransformerLM, EncoderDecoder),
        "a models.TransformerLM or EncoderDecoder",
        "Other modules: to_torch.",
    )
    folder, added = check_folder(path), _check_added_fields(fields)
    check_int("max_shard_bytes", max_shard_bytes, 1, "It is the size of a file at most.")
    chosen, written = matching_families(model.config, family)[0]
    wrong = sorted(name for name in added if name not in HARMLESS or written.get(name, added[name]) != added[name])
    if wrong:
        raise ValueError(f"fields: expected only what does not change the logits, got {', '.join(wrong)}.")
    unrolled = models.unroll_layers(model) if model.config.scan else model
    jax_arrays = {name: np.asarray(x) for name, x in arrays_by_path(unrolled).items()}
    # Cast after converting: an offset (Gemma) is added in float32.
    hf_arrays = {
        name: x.astype(jnp.dtype(unrolled.config.param_dtype))
        for name, x in to_torch_arrays(chosen.weight_mappings(unrolled.config), jax_arrays).items()
    }
    identity = {
        "model_type": chosen.model_type,
        "architectures": [chosen.architecture],
        "dtype": unrolled.config.param_dtype,
    }
    identity |= {"is_encoder_decoder": True} if chosen.is_encoder_decoder else {}
    write_folder(folder, NO_TOKEN_IDS | added | written | identity, hf_arrays, max_shard_bytes)
    return chosen.model_type


def _dtype_name(dtype: Any) -> Any:
    """`jnp.bfloat16` as "bfloat16". Anything that is no dtype passes unchanged: the config's own check reports it."""
    try:
        return dtype if dtype is None or isinstance(dtype, str) else jnp.dtype(dtype).name
    except TypeError:
        return dtype


def _check_added_fields(fields: Any) -> dict[str, Any]:
    """Check that fields have names and values that JSON can express; NumPy scalars become Python numbers."""
    fields = check_instance(
        "fields", {} if fields is None else fields, Mapping, "a dictionary of fields of config.json"
    )
    added = {}
    for name, x in fields.items():
        check_instance("fields", name, str, "names of fields")
        added[name] = x.item() if isinstance(x, np.generic) else x
    try:
        json.dumps(added)
    except TypeError as error:
        raise TypeError(f"fields: expected values that JSON can say, got {added} ({error}).") from None
    return added
