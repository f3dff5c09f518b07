"""Language models from and to Hugging Face folders, strictly: nothing missing, nothing left over, nothing guessed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import models, normalizers, scores
from jax_attention.core.checks import check_instance, check_int
from jax_attention.core.tree_paths import arrays_by_path, replace_arrays
from jax_attention.interop.entries import to_ours, to_theirs
from jax_attention.interop.families import FAMILIES
from jax_attention.interop.family import Config, Family
from jax_attention.interop.fields import HARMLESS, Fields
from jax_attention.interop.folder import SHARD, as_folder, read_config, read_weights, write_folder
from jax_attention.interop.stored import settled
from jax_attention.models import EncoderDecoder, EncoderDecoderConfig, LMConfig, TransformerLM
from jax_attention.positions import Rotary, rotary

NEUTRAL = ("scan", "remat", "dtype", "param_dtype", "dropout", "attention_dropout")
"""Fields of our config that do not say which function the model is. Rates of dropout are written where the family has
a place for them.
"""
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
BY_TYPE = {family.model_type: family for family in FAMILIES}


def load(
    path: str | Path,
    *,
    dtype: Any = None,
    param_dtype: Any = None,
    scan: bool = False,
    allow_pickle: bool = False,
) -> TransformerLM | EncoderDecoder:
    """A model from a Hugging Face folder: `config.json` and safetensors.

        load(path)(tokens).logits  =  AutoModelForCausalLM.from_pretrained(path)(tokens).logits

    and so for masked language models, and for encoder–decoders with `load(path)(source, target)`.

    Args:
        path: the folder, on this machine; nothing is downloaded.
        dtype: to compute in, by name or as a dtype of JAX; that of the parameters if None.
        param_dtype: of the parameters; as stored if None, the widest where they differ.
        scan: stack the blocks and run them by `lax.scan`.
        allow_pickle: read `pytorch_model.bin` where there are no safetensors, by `torch.load(weights_only=True)`.

    Returns:
        A `models.TransformerLM`, of the families GPT-2, GPT-NeoX (Pythia), Llama, Mistral, Qwen 2 and 3, Gemma 1, 2 and
        3 (text), Phi 3, OLMo 2, and the encoders BERT, RoBERTa, DistilBERT; or a `models.EncoderDecoder`: T5, BART,
        Marian. Heads of other tasks (BERT's pooler and next sentence) are not read; a folder of a bare encoder gives
        its `hidden` states, and logits without meaning. The tokenizer is `data.load_tokenizer(path)`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the family is unknown, a field of the config is not understood, or an array is missing, left
            over or misshapen; the message lists them.
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
    folder = as_folder(path)
    check_instance("scan", scan, bool, "True or False")
    dtype, param_dtype = _dtype_name(dtype), _dtype_name(param_dtype)
    family, config = described(folder)
    config, stored = settled(family, config, read_weights(folder, allow_pickle))
    param_dtype = _widest(stored) if param_dtype is None else param_dtype
    config = config.replace(dtype=dtype or param_dtype, param_dtype=param_dtype)
    what = (
        f"path: expected the arrays of a {family.model_type} of this config in {str(folder)!r}{_other(folder, family)}"
    )
    arrays = to_ours(family.entries(config), stored, what)
    abstract = jax.eval_shape(lambda: models.create(config))
    cast = {name: jnp.asarray(np.ascontiguousarray(x), param_dtype) for name, x in arrays.items()}
    model = replace_arrays(abstract, cast, what)
    return models.scan_layers(model) if scan else model


def save(
    model: TransformerLM | EncoderDecoder,
    path: str | Path,
    *,
    family: str | None = None,
    fields: Mapping[str, Any] | None = None,
    max_shard_bytes: int = SHARD,
) -> str:
    """Write a model as a folder that `transformers` loads.

        AutoModelForCausalLM.from_pretrained(path)(tokens).logits  =  model(tokens).logits

    Args:
        model: scanned or not.
        path: the folder to make; a model that is already there is not overwritten.
        family: a `model_type` such as "llama"; None takes the first that can express the config.
        fields: to add to `config.json`: token ids and whatever else does not change the logits, such as
            `{"eos_token_id": 2}`. Ids that are not given are null.
        max_shard_bytes: larger models are written in several files.

    Returns:
        The `model_type` that was written.

    Raises:
        ValueError: if no family, or not this one, computes what the config says, naming the fields; or if an added
            field would change the logits.
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
    folder, added = as_folder(path), _added(fields)
    check_int("max_shard_bytes", max_shard_bytes, 1, "It is the size of a file at most.")
    chosen, own = expressed(model.config, family)
    wrong = sorted(name for name in added if name not in HARMLESS or own.get(name, added[name]) != added[name])
    if wrong:
        raise ValueError(f"fields: expected only what does not change the logits, got {', '.join(wrong)}.")
    plain = models.unroll_layers(model) if model.config.scan else model
    ours = {name: np.asarray(x) for name, x in arrays_by_path(plain).items()}
    theirs = {
        name: x.astype(jnp.dtype(plain.config.param_dtype))
        for name, x in to_theirs(chosen.entries(plain.config), ours).items()
    }
    about = {"model_type": chosen.model_type, "architectures": [chosen.architecture], "dtype": plain.config.param_dtype}
    about |= {"is_encoder_decoder": True} if chosen.pair else {}
    write_folder(folder, NO_TOKENS | added | own | about, theirs, max_shard_bytes)
    return chosen.model_type


# --- Reading ---------------------------------------------------------------------------------------------------------


def _widest(stored: Mapping[str, np.ndarray]) -> str:
    """The dtype that holds all numbers."""
    if any(x.dtype == np.float64 for x in stored.values()) and not jax.config.jax_enable_x64:
        raise ValueError(
            "param_dtype: expected x64 mode for the float64 arrays of this folder, or another dtype, got None. Call "
            'jax.config.update("jax_enable_x64", True) first, or pass param_dtype="float32".'
        )
    return str(jnp.result_type(*(x.dtype for x in stored.values())))


def _dtype_name(dtype: Any) -> Any:
    """`jnp.bfloat16` as "bfloat16"; what is no dtype is left for the config to complain of."""
    try:
        return dtype if dtype is None or isinstance(dtype, str) else jnp.dtype(dtype).name
    except TypeError:
        return dtype


def _other(folder: Path, family: Family) -> str:
    """What the config says the model is, if it says something else than we read: a classifier, say."""
    names = read_config(folder).get("architectures") or [family.architecture]
    return "" if family.architecture in names else f", a {names[0]} by its config where we read {family.architecture}"


def described(folder: Path) -> tuple[Family, Config]:
    """The family of a folder's model, and its config, before any array is read."""
    given = read_config(folder)
    family = family_of(given)
    return family, _config(family, given)


def family_of(given: Mapping[str, Any]) -> Family:
    """The family that a config names."""
    kind = given.get("model_type")
    if kind not in BY_TYPE:
        raise ValueError(f"config.json: expected a model_type among {', '.join(BY_TYPE)}, got {kind!r}.")
    return BY_TYPE[kind]


def _config(family: Family, given: dict[str, Any]) -> Config:
    fields = Fields(given)
    fields.expect("is_encoder_decoder", family.pair)
    config = family.read(fields)
    if fields.unread():
        unknown = ", ".join(f"{name} = {given[name]!r}" for name in fields.unread())
        raise ValueError(
            f"config.json: expected only fields that are known of {family.model_type}, got also {unknown}. They "
            "may change what the model computes; remove those that do not."
        )
    return config


# --- Writing ---------------------------------------------------------------------------------------------------------


def _added(fields: Any) -> dict[str, Any]:
    """Fields by name, of what JSON can say."""
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


def expressed(config: Config, name: str | None) -> tuple[Family, dict[str, Any]]:
    """The first family that says exactly this config, and its fields."""
    return expressions(config, name)[0]


def expressions(config: Config, name: str | None) -> list[tuple[Family, dict[str, Any]]]:
    """All families that say exactly this config, or the named one; at least one."""
    if name is not None and (not isinstance(name, str) or name not in BY_TYPE):
        raise ValueError(f"family: expected one of {', '.join(BY_TYPE)}, got {name!r}.")
    able, tried = [], []
    for family in FAMILIES if name is None else (BY_TYPE[name],):
        fits = family.pair == isinstance(config, EncoderDecoderConfig)
        fields = _attempt(lambda family=family: family.write(config)) if fits else None
        pair = {"is_encoder_decoder": family.pair}
        back = None if fields is None else _attempt(lambda family=family, x=fields | pair: _config(family, x))
        lost = ["the rule"] if back is None else _differences(config, back)
        if lost:
            tried.append(((back is None, len(lost)), family.model_type, lost))
        else:
            able.append((family, fields))
    if able:
        return able
    _, nearest, lost = min(tried, key=lambda x: x[0])
    raise ValueError(
        f"config: expected a model that {'some family' if name is None else name} of Hugging Face computes, got fields "
        f"that {nearest} cannot say: {', '.join(lost)}. Keep it as a run, or by training.Checkpoints."
    )


def _attempt(make: Callable[[], Any]) -> Any:
    """What it makes, or None where the family has no words for it."""
    try:
        return make()
    except (ValueError, TypeError, LookupError):
        return None


def _differences(config: Config, other: Config) -> list[str]:
    ours, theirs = _said(config), _said(other)
    return [name for name in ours if ours[name] != theirs[name]]


def _said(config: Config) -> dict[str, Any]:
    """What a config says, each thing in one way; of a pair, what its halves say."""
    if isinstance(config, LMConfig):
        return _normal(config)
    halves = {"encoder": config.encoder, "decoder": config.decoder}
    found = {f"{half}.{name}": x for half, own in halves.items() for name, x in _normal(own).items()}
    return found | {"shared_embedding": config.shared_embedding}


def _normal(config: LMConfig) -> dict[str, Any]:
    """What the config says, each thing in one way."""
    found = {
        field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name not in NEUTRAL
    }
    size, windows = config.resolved_head_size, tuple(config.window(layer) for layer in range(config.depth))
    places = ("qkv", "out", "feed_forward") + (("norm",) if config.norm == "layer" else ())
    found |= {
        "final_norm": config.has_final_norm,
        "normalize": None if config.normalize == normalizers.softmax() else config.normalize,
        "kv_heads": config.resolved_kv_heads,
        "head_size": size,
        "ff_size": config.resolved_ff_size,
        "use_bias": [place for place in places if config.has_bias(place)],
        "windows": windows,
        "score": scores.scaled_dot(size**-0.5) if config.score in (None, scores.scaled_dot()) else config.score,
    }
    local = config.rope if config.local_rope is None or not any(windows) else config.local_rope
    turned = config.position == "rotary"
    return found | {
        name: _whole(x, size) if turned else None for name, x in (("rope", config.rope), ("local_rope", local))
    }


def _whole(rope: Rotary, head_size: int) -> Rotary:
    return rotary(style=rope.style, base=rope.base, scaling=rope.scaling) if rope.size == head_size else rope
