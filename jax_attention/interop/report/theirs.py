"""The PyTorch side: a model of transformers, run once, with what goes into and out of every part."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_attention.ground.checks import fail_unless
from jax_attention.interop.entries import Entry
from jax_attention.interop.hugging_face import load
from jax_attention.interop.report.points import AFTER, IN_BLOCK, POINTS, module_of
from jax_attention.interop.tensors import highest_precision, import_torch, to_numpy, to_tensor
from jax_attention.models import TransformerLM

Place = tuple[int | None, str]
"""Layer and name of a point; what is not in a block has no layer."""


@dataclass(frozen=True)
class Trace:
    """What came and went at every place, and the layers themselves, to be asked again."""

    inputs: Mapping[Place, np.ndarray]
    outputs: Mapping[Place, np.ndarray]
    again: Mapping[Place, Callable[[np.ndarray], np.ndarray]]
    """For parts that are called with one array."""


def import_transformers() -> Any:
    """The module transformers, which is not a dependency of this library."""
    import_torch()
    try:
        import transformers
    except ImportError:
        raise ImportError(
            "transformers: expected the package to be installed, got no such module. Run: pip install "
            "jax_attention[interop]"
        ) from None
    return transformers


def load_theirs(folder: Path, dtype: str | None) -> Any:
    """The model in a folder, with attention step by step; None is the dtype in which it is stored."""
    transformers = import_transformers()
    with _quiet(transformers):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto" if dtype is None else dtype, attn_implementation="eager", local_files_only=True
        )
    return model.eval()


def ours_from(theirs: Any, dtype: str) -> TransformerLM:
    """Our model of one of theirs in memory, by way of a folder."""
    with tempfile.TemporaryDirectory() as folder, _quiet(import_transformers()):
        theirs.save_pretrained(folder)
        return load(folder, dtype=dtype, param_dtype=dtype)


def dtype_of(theirs: Any) -> str:
    """Of their embedding."""
    return str(theirs.get_input_embeddings().weight.dtype).removeprefix("torch.")


def traced(theirs: Any, entries: list[Entry], depth: int, tokens: np.ndarray, seen: np.ndarray) -> Trace:
    """Run it without dropout, with hooks on every part. Padding, where `seen` is false, is masked, at position 0."""
    torch, places = import_torch(), _places(theirs, entries, depth)
    inputs: dict[Place, np.ndarray] = {}
    outputs: dict[Place, np.ndarray] = {}

    def hook(place: Place) -> Callable[..., None]:
        def keep(module: Any, args: tuple, kwargs: dict, output: Any) -> None:
            inputs[place] = to_numpy(args[0] if args else kwargs["hidden_states"])
            outputs[place] = to_numpy(output[0] if isinstance(output, tuple) else output)

        return keep

    hooks = [module.register_forward_hook(hook(place), with_kwargs=True) for place, module in places.items()]
    modes = [(module, module.training) for module in theirs.modules()]
    theirs.eval()
    put = lambda x: torch.from_numpy(x).to(theirs.device)  # noqa: E731
    try:
        with torch.no_grad(), highest_precision(torch):
            logits = theirs(
                put(tokens),
                attention_mask=put(seen.astype(np.int64)),
                position_ids=put(np.maximum(np.cumsum(seen, axis=-1) - 1, 0)),
                use_cache=False,
            ).logits
    finally:
        for registered in hooks:
            registered.remove()
        for module, training in modes:
            module.training = training
    inputs[None, "embedding"], outputs[None, "embedding"] = tokens, inputs[0, "block"]
    inputs[None, "head"], outputs[None, "head"] = outputs[None, "final norm"], to_numpy(logits)
    simple = {place: module for place, module in places.items() if POINTS[place[1]].kind == "norm"}
    return Trace(inputs, outputs, {place: _asker(module) for place, module in simple.items()})


def _places(theirs: Any, entries: list[Entry], depth: int) -> dict[Place, Any]:
    """Their modules by place; their head is not among them, as its output is the model's."""
    wanted = [(layer, point) for layer in range(depth) for point in IN_BLOCK]
    wanted += [(None, point) for point in AFTER if point.name != "head"]
    names = {(layer, point.name): module_of(entries, point.ours.format(layer=layer)) for layer, point in wanted}
    modules, found = dict(theirs.named_modules()), {}
    for place, name in names.items():
        if name is not None:
            fail_unless(
                name in modules,
                f"ours: expected a model whose parts are those of theirs, got one with "
                f"{POINTS[place[1]].ours.format(layer=place[0])}, where theirs has no {name}. Load ours from the same "
                "folder, or leave it out.",
            )
            found[place] = modules[name]
    return found


def _asker(module: Any) -> Callable[[np.ndarray], np.ndarray]:
    def again(x: np.ndarray) -> np.ndarray:
        torch = import_torch()
        with torch.no_grad(), highest_precision(torch):
            return to_numpy(module(to_tensor(x).to(module.weight.device)))

    return again


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without bars on standard error."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def check_model(theirs: Any, architecture: str, dtype: str | None) -> None:
    """A model in memory is compared as it is."""
    fail_unless(
        theirs.get_output_embeddings() is not None,
        f"theirs: expected a model with a language-model head, {architecture}, got {type(theirs).__name__}.",
        TypeError,
    )
    got = dtype_of(theirs)
    fail_unless(
        dtype in (None, got),
        f"theirs: expected a model in {dtype}, got one in {got}. Either convert it, theirs.to(torch.{dtype}), or "
        "compare it as it is: dtype=None.",
        TypeError,
    )


def eps_of(*dtypes: str) -> float:
    """Of the coarsest."""
    return max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
