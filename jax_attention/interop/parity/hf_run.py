"""The side of transformers: a model that runs once, with the inputs and outputs of every part recorded by hooks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import fail_unless
from jax_attention.core.text import quote
from jax_attention.interop.hf.config import read_config
from jax_attention.interop.hf.family import Config
from jax_attention.interop.hf.load_save import load
from jax_attention.interop.parity.points import AFTER, BEFORE, IN_BLOCK, POINTS, UNHOOKED, hf_module_name
from jax_attention.interop.torch.tensors import highest_precision, import_torch, to_numpy, to_tensor
from jax_attention.interop.weight_mapping import WeightMapping
from jax_attention.models import EncoderDecoder, TransformerLM

Place = tuple[int | None, str]
"""Layer and name of a point; points outside of blocks have no layer."""
PointModules = Mapping[Place, tuple[Any, Any]]
"""For every place the module that gets its input and the module that gives its output."""


@dataclass(frozen=True)
class Trace:
    """Inputs and outputs at every place of one stack, in the order in which transformers computed them."""

    inputs: Mapping[Place, np.ndarray]
    outputs: Mapping[Place, np.ndarray]
    norms: Mapping[Place, Callable[[np.ndarray], np.ndarray]]
    """The norms as functions, to call them with other inputs."""
    final_hidden: np.ndarray
    """Output of the last block and the norm after it: the input of the head, or the memory of a decoder."""

    def names(self, layer: int | None) -> list[str]:
        """Names of the points of a layer."""
        return [name for at, name in self.outputs if at == layer]


# --- Models ----------------------------------------------------------------------------------------------------------


def import_transformers() -> Any:
    """Import transformers, an optional dependency."""
    import_torch()
    try:
        import transformers
    except ImportError:
        raise ImportError(
            "transformers: expected the package to be installed, got no such module. Run: pip install "
            "jax_attention[interop]"
        ) from None
    return transformers


def load_hf_model(folder: Path, architecture: str, dtype: str | None) -> Any:
    """The model in a folder, in the stored dtype if that is None.

    Eager attention is the reference of transformers: fused kernels round in another order, and some give other results
    where a mask leaves no key.
    """
    transformers = import_transformers()
    with _without_progress_bars(transformers):
        try:
            model, info = getattr(transformers, architecture).from_pretrained(
                folder,
                dtype="auto" if dtype is None else dtype,
                attn_implementation="eager",
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # fields that this library does not read may make transformers raise anything
            raise ValueError(
                f"hf_model: expected a folder that transformers loads, got {type(error).__name__}: "
                f"{quote(str(error), 300)}."
            ) from error
    # transformers draws what it does not find at random, and goes on.
    embedding = model.get_input_embeddings().weight
    fail_unless(
        not any(x is embedding and name in info["missing_keys"] for name, x in model.named_parameters()),
        f"hf_model: expected weights under the names of {architecture}, got others, of a wrapper around it. Unwrap "
        "it: interop.save(interop.load(FOLDER), NEW_FOLDER).",
    )
    return model.eval()


def to_jax_model(hf_model: Any, dtype: str) -> TransformerLM | EncoderDecoder:
    """The JAX model with the weights of a model in memory, by way of a temporary folder."""
    with tempfile.TemporaryDirectory() as folder, _without_progress_bars(import_transformers()):
        hf_model.save_pretrained(folder)
        return load(folder, dtype=dtype, param_dtype=dtype)


def to_jax_config(hf_model: Any) -> Config:
    """The config of a model in memory, by way of a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        hf_model.config.save_pretrained(folder)
        return read_config(Path(folder))[1]


def embedding_dtype(hf_model: Any) -> str:
    """Name of the dtype of the embedding, which stands for that of the model."""
    return str(hf_model.get_input_embeddings().weight.dtype).removeprefix("torch.")


def check_hf_model(hf_model: Any, architecture: str, dtype: str | None) -> None:
    """Check a model in memory: it has a head, and the dtype of the comparison, as it is not converted."""
    fail_unless(
        hf_model.get_output_embeddings() is not None,
        f"hf_model: expected a model with a language-model head, {architecture}, got {type(hf_model).__name__}.",
        TypeError,
    )
    actual = embedding_dtype(hf_model)
    fail_unless(
        dtype in (None, actual),
        f"hf_model: expected a model in {dtype}, got one in {actual}. Either convert it, model.to(torch.{dtype}), or "
        "compare it as it is: dtype=None.",
        TypeError,
    )


def largest_eps(*dtypes: str) -> float:
    """The machine epsilon of the coarsest dtype."""
    return max(float(jnp.finfo(dtype).eps) for dtype in dtypes)


@contextmanager
def _without_progress_bars(transformers: Any) -> Iterator[None]:
    """Keep transformers from drawing progress bars on standard error, and restore its setting."""
    logging = transformers.utils.logging
    is_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_enabled:
            logging.enable_progress_bar()


# --- Traces ----------------------------------------------------------------------------------------------------------


def hook_modules(hf_model: Any, mappings: list[WeightMapping], depth: int, stack: str) -> PointModules:
    """The modules of one stack by place. The head is not among them: its output is that of the model."""
    points = [(layer, point) for layer in range(depth) for point in IN_BLOCK]
    points += [(None, point) for point in (*BEFORE, *AFTER) if point.name not in UNHOOKED]
    modules, hooked = dict(hf_model.named_modules()), {}
    for layer, point in points:
        names = [hf_module_name(mappings, path) for path in point.ends(layer)]
        if None not in names:
            fail_unless(
                all(name in modules for name in names),
                f"jax_model: expected a model with the parts of hf_model, got one with {stack}{'.' * bool(stack)}"
                f"{point.ends(layer)[0]}, where hf_model has no {names[0]}. Load it from the same folder, or leave it "
                "out.",
            )
            hooked[layer, point.name] = tuple(_called_module(modules, name) for name in names)
    return hooked


def _called_module(modules: Mapping[str, Any], name: str) -> Any:
    """The module of this name. A `ModuleList` is never called, so hooks go to the module around it."""
    module_list = import_torch().nn.ModuleList
    while isinstance(modules[name], module_list):
        name = name.rpartition(".")[0]
    return modules[name]


def trace_model(
    hf_model: Any,
    stacks: Mapping[str, PointModules],
    tokens: Mapping[str, np.ndarray],
    arguments: Mapping[str, np.ndarray],
    has_head: bool,
) -> dict[str, Trace]:
    """Call a model once, without dropout, and record the inputs and outputs of every part.

    Args:
        hf_model: left as it was: hooks are removed and training modes restored.
        stacks: the modules of each stack; only the last may have a head.
        tokens: what each stack reads in this call.
        arguments: of the call.
        has_head: whether the logits are those of a head that JAX has as well.
    """
    torch = import_torch()
    inputs: dict[str, dict[Place, np.ndarray]] = {stack: {(None, "embedding"): tokens[stack]} for stack in stacks}
    outputs: dict[str, dict[Place, np.ndarray]] = {stack: {} for stack in stacks}
    hooks = []
    for stack, modules in stacks.items():
        for place, (first, last) in modules.items():
            hooks += [
                first.register_forward_hook(partial(_record_input, inputs[stack], place), with_kwargs=True),
                last.register_forward_hook(partial(_record_output, outputs[stack], place)),
            ]
    training_modes = [(module, module.training) for module in hf_model.modules()]
    hf_model.eval()
    try:
        with torch.no_grad(), highest_precision(torch):
            tensors = {name: torch.from_numpy(x).to(hf_model.device) for name, x in arguments.items()}
            logits = to_numpy(hf_model(**tensors, use_cache=False).logits)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in training_modes:
            module.training = training
    stack_logits = dict.fromkeys(stacks) | ({stack: logits for stack in [*stacks][-1:]} if has_head else {})
    return {stack: _trace(stacks[stack], inputs[stack], outputs[stack], stack_logits[stack]) for stack in stacks}


def _record_input(
    recorded: dict[Place, np.ndarray], place: Place, module: Any, args: tuple, kwargs: dict, out: Any
) -> None:
    recorded[place] = to_numpy(args[0] if args else kwargs["hidden_states"])


def _record_output(recorded: dict[Place, np.ndarray], place: Place, module: Any, args: tuple, out: Any) -> None:
    recorded[place] = to_numpy(out[0] if isinstance(out, tuple) else out)


def _trace(modules: PointModules, inputs: dict, outputs: dict, logits: np.ndarray | None) -> Trace:
    """A trace of one stack, with the points that have no hooks added."""
    depth = 1 + max(layer for layer, _ in modules if layer is not None)
    final_hidden = outputs.get((None, "final norm"), outputs[depth - 1, "block"])
    outputs[None, "embedding"] = inputs[0, "block"]
    if logits is not None:
        inputs[None, "head"], outputs[None, "head"] = final_hidden, logits
    norms = {place: _as_function(last) for place, (_, last) in modules.items() if POINTS[place[1]].kind == "norm"}
    return Trace(inputs, outputs, norms, final_hidden)


def _as_function(module: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A function of NumPy arrays that calls a module with a weight."""

    def call(x: np.ndarray) -> np.ndarray:
        torch = import_torch()
        with torch.no_grad(), highest_precision(torch):
            return to_numpy(module(to_tensor(x).to(module.weight.device)))

    return call
