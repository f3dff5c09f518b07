"""The PyTorch side: a model of transformers, run once, with what goes into and out of every part."""

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
from jax_attention.interop.hf.family import Config
from jax_attention.interop.hf.load_save import described, load
from jax_attention.interop.parity.points import AFTER, BEFORE, IN_BLOCK, POINTS, UNHOOKED, module_of
from jax_attention.interop.torch.tensors import highest_precision, import_torch, to_numpy, to_tensor
from jax_attention.interop.weight_mapping import Entry
from jax_attention.models import EncoderDecoder, TransformerLM

Place = tuple[int | None, str]
"""Layer and name of a point; what is not in a block has no layer."""
Hooked = Mapping[Place, tuple[Any, Any]]
"""Of every place the module of theirs that gets its input, and the one that gives its output."""


@dataclass(frozen=True)
class Trace:
    """What came and went at every place, in the order in which theirs computed it, and the layers themselves, to be
    asked again.
    """

    inputs: Mapping[Place, np.ndarray]
    outputs: Mapping[Place, np.ndarray]
    again: Mapping[Place, Callable[[np.ndarray], np.ndarray]]
    """For parts that are called with one array."""
    end: np.ndarray
    """What comes of the last block and the norm behind it: the head reads this, or a decoder."""

    def names(self, layer: int | None) -> list[str]:
        """The points of this layer."""
        return [name for at, name in self.outputs if at == layer]


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


def load_theirs(folder: Path, architecture: str, dtype: str | None) -> Any:
    """The model in a folder, with attention step by step; None is the dtype in which it is stored."""
    transformers = import_transformers()
    with _quiet(transformers):
        model = getattr(transformers, architecture).from_pretrained(
            folder, dtype="auto" if dtype is None else dtype, attn_implementation="eager", local_files_only=True
        )
    return model.eval()


def ours_from(theirs: Any, dtype: str) -> TransformerLM | EncoderDecoder:
    """Our model of one of theirs in memory, by way of a folder."""
    with tempfile.TemporaryDirectory() as folder, _quiet(import_transformers()):
        theirs.save_pretrained(folder)
        return load(folder, dtype=dtype, param_dtype=dtype)


def config_of(theirs: Any) -> Config:
    """Our config of one of theirs in memory, by way of a folder."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.config.save_pretrained(folder)
        return described(Path(folder))[1]


def dtype_of(theirs: Any) -> str:
    """Of their embedding."""
    return str(theirs.get_input_embeddings().weight.dtype).removeprefix("torch.")


def traced(
    theirs: Any,
    halves: Mapping[str, Hooked],
    tokens: Mapping[str, np.ndarray],
    call: Mapping[str, np.ndarray],
    has_head: bool,
) -> dict[str, Trace]:
    """Call it without dropout, with hooks on every part of every half, of which the last may have a head; tokens are
    what each half reads in this call.
    """
    torch = import_torch()
    inputs: dict[str, dict[Place, np.ndarray]] = {half: {(None, "embedding"): tokens[half]} for half in halves}
    outputs: dict[str, dict[Place, np.ndarray]] = {half: {} for half in halves}
    hooks = []
    for half, hooked in halves.items():
        for place, (first, last) in hooked.items():
            hooks += [
                first.register_forward_hook(partial(_keep_input, inputs[half], place), with_kwargs=True),
                last.register_forward_hook(partial(_keep_output, outputs[half], place)),
            ]
    modes = [(module, module.training) for module in theirs.modules()]
    theirs.eval()
    try:
        with torch.no_grad(), highest_precision(torch):
            given = {name: torch.from_numpy(x).to(theirs.device) for name, x in call.items()}
            logits = to_numpy(theirs(**given, use_cache=False).logits)
    finally:
        for registered in hooks:
            registered.remove()
        for module, training in modes:
            module.training = training
    tops = dict.fromkeys(halves) | ({half: logits for half in [*halves][-1:]} if has_head else {})
    return {half: _trace(halves[half], inputs[half], outputs[half], tops[half]) for half in halves}


def _keep_input(kept: dict[Place, np.ndarray], place: Place, module: Any, args: tuple, kwargs: dict, out: Any) -> None:
    kept[place] = to_numpy(args[0] if args else kwargs["hidden_states"])


def _keep_output(kept: dict[Place, np.ndarray], place: Place, module: Any, args: tuple, out: Any) -> None:
    kept[place] = to_numpy(out[0] if isinstance(out, tuple) else out)


def _trace(hooked: Hooked, inputs: dict, outputs: dict, logits: np.ndarray | None) -> Trace:
    """With the points that no hook reaches."""
    depth = 1 + max(layer for layer, _ in hooked if layer is not None)
    end = outputs.get((None, "final norm"), outputs[depth - 1, "block"])
    outputs[None, "embedding"] = inputs[0, "block"]
    if logits is not None:
        inputs[None, "head"], outputs[None, "head"] = end, logits
    simple = {place: last for place, (_, last) in hooked.items() if POINTS[place[1]].kind == "norm"}
    return Trace(inputs, outputs, {place: _asker(module) for place, module in simple.items()}, end)


def hooked(theirs: Any, entries: list[Entry], depth: int, half: str) -> Hooked:
    """Their modules by place; their head is not among them, as its output is the model's."""
    wanted = [(layer, point) for layer in range(depth) for point in IN_BLOCK]
    wanted += [(None, point) for point in (*BEFORE, *AFTER) if point.name not in UNHOOKED]
    modules, found = dict(theirs.named_modules()), {}
    for layer, point in wanted:
        names = [module_of(entries, side) for side in point.sides(layer)]
        if None not in names:
            fail_unless(
                all(name in modules for name in names),
                f"ours: expected a model whose parts are those of theirs, got one with {half}{'.' * bool(half)}"
                f"{point.sides(layer)[0]}, where theirs has no {names[0]}. Load ours from the same folder, or leave it "
                "out.",
            )
            found[layer, point.name] = tuple(_called(modules, name) for name in names)
    return found


def _called(modules: Mapping[str, Any], name: str) -> Any:
    """The module of this name, or the one around it where it is a list of modules, which is never called."""
    lists = import_torch().nn.ModuleList
    while isinstance(modules[name], lists):
        name = name.rpartition(".")[0]
    return modules[name]


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
