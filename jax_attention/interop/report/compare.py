"""Does a PyTorch model compute the same as ours? Both run on the same tokens, and each part on the same input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jax_attention.cache import EMPTY
from jax_attention.ground.checks import fail_unless
from jax_attention.interop.families import DECODERS
from jax_attention.interop.family import Family
from jax_attention.interop.folder import read_config
from jax_attention.interop.hugging_face import family_of, load
from jax_attention.interop.report.points import AFTER, BEFORE, IN_BLOCK
from jax_attention.interop.report.recognise import Evidence, recognise
from jax_attention.interop.report.result import Report
from jax_attention.interop.report.rounding import (
    Row,
    Scale,
    alone,
    compared,
    judged,
    longest_sum,
    streams,
)
from jax_attention.interop.report.theirs import Trace, check_model, dtype_of, eps_of, load_theirs, ours_from, traced
from jax_attention.interop.report.tokens import chosen_tokens, window_notes
from jax_attention.models import TransformerLM, unrolled
from jax_attention.nn.named import named

if TYPE_CHECKING:
    from jaxtyping import Array, Int


def compare(
    theirs: Any,
    ours: TransformerLM | None = None,
    *,
    tokens: Int[Array, "*lead T"] | None = None,
    text: str | None = None,
    dtype: str | None = "float32",
) -> Report:
    """Compare a language model of transformers with ours, layer by layer, and name the first wrong layer and its cause.

        difference(layer, point) = max |ours_point(x) - theirs_point(x)|,        x = what theirs got at that point
        allowed = sqrt(layers) (8 eps + sqrt(n) min(eps, 2^-23)) / 2 (largest expected + sensitivity)

    Of that, n is the number of terms in the longest sum, sensitivity the change of the result if every input changed by
    its own size, and layers is 1 but for whole models, where it counts those that came before.

    A cause is recognised by a counterfactual: ours is changed to do as theirs might (tanh in place of erf, another
    epsilon, mask, scale, rotary embedding, a kernel transposed), and what makes the difference vanish is named.

    Args:
        theirs: a folder with `config.json` and weights, or a model of transformers in memory, compared as it is.
        ours: the model to compare with; None loads the same folder, or a copy of the model in memory.
        tokens: `[T]` or `[B, T]`, negative where there is padding, on the left. None: two rows of random ones, one of
            them padded, long enough to leave a window of up to 250 keys.
        text: instead of tokens; needs a folder with a tokenizer.
        dtype: to compute in; None is the dtype of the file or of the model in memory.

    Returns:
        A `Report`: `equal`, `verdict`, `cause`, `rows`, `table()`, `html()`; print it to see a table.

    Raises:
        FileNotFoundError: if there is no such folder.
        ImportError: if PyTorch or transformers is not installed.
        ValueError: if the family is unknown, ours has other sizes, or tokens do not fit.
        TypeError: if theirs is neither a folder nor a model of transformers, or is in another dtype.

    Example:
        >>> import tempfile
        >>> from jax_attention import interop, models
        >>> config = models.gpt2(vocab_size=19, context=8, width=8, depth=2, num_heads=2)
        >>> folder = tempfile.mkdtemp()
        >>> interop.save(models.create(config), folder)
        'gpt2'
        >>> interop.compare(folder).verdict
        'rounding'

    Reference:
        Higham (2002), "Accuracy and stability of numerical algorithms", section 2.8: rounding errors as a random walk.
    """
    folder = Path(theirs) if isinstance(theirs, (str, Path)) else None
    if folder is not None:
        family = _decoder(family_of(read_config(folder)))
        theirs = load_theirs(folder, dtype)
    else:
        family = _decoder(family_of({"model_type": _model_type(theirs)}))
        check_model(theirs, family.architecture, dtype)
    dtype = dtype_of(theirs)
    if ours is None:
        ours = ours_from(theirs, dtype) if folder is None else load(folder, dtype=dtype, param_dtype=dtype)
    _check_sizes(theirs, ours)
    tokens, seen = chosen_tokens(ours.config, folder, tokens, text)
    positions = np.where(seen, np.cumsum(seen, axis=-1) - 1, EMPTY).astype(np.int32)
    plain = unrolled(ours) if ours.config.scan else ours
    arrays = named(plain)
    entries = [entry for entry in family.entries(plain.config) if all(name in arrays for name in entry.ours)]
    trace = traced(theirs, entries, plain.config.depth, tokens, seen)
    scale = Scale(eps_of(dtype, ours.config.dtype), positions, seen.shape[-1])
    rows = tuple(_rows(ours, plain, trace, seen, scale))
    suspect = next((row for row in rows if not row.equal), None)
    cause = None if suspect is None else recognise(suspect, Evidence(plain, trace, seen, scale, rows))
    title = f"{family.architecture} {'in memory' if folder is None else f'of {folder}'}"
    return Report(title, dtype, rows, scale.relative(1), cause, window_notes(ours.config, seen))


def _rows(ours: TransformerLM, plain: TransformerLM, trace: Trace, seen: np.ndarray, scale: Scale) -> Iterator[Row]:
    """In the order of the computation: what is local, then what has come of all that was before it."""
    (hidden, logits), (moved, moved_logits) = streams(ours, trace.inputs[None, "embedding"], scale)
    depth = ours.config.depth
    yield from _local(alone(plain, 0), None, BEFORE, trace, seen, scale)
    n = longest_sum("block", ours.config, scale.length)
    for layer in range(depth):
        yield from _local(alone(plain, layer), layer, IN_BLOCK, trace, seen, scale)
        pair = (hidden[layer], moved[layer], trace.outputs[layer, "block"])
        yield Row(layer, "stream", *compared(*pair, seen, scale, scale.relative(n, layer + 1)))
    yield from _local(alone(plain, 0), None, AFTER, trace, seen, scale)
    pair = (logits, moved_logits, trace.outputs[None, "head"])
    yield Row(None, "logits", *compared(*pair, seen, scale, scale.relative(n, depth + 1)))


def _local(model: TransformerLM, layer: int | None, points: tuple, trace: Trace, seen: Any, scale: Scale) -> Any:
    names = [point.name for point in points if (layer, point.name) in trace.inputs]
    inputs, outputs = ({name: x[layer, name] for name in names} for x in (trace.inputs, trace.outputs))
    found = judged(model, inputs, outputs, seen, scale)
    return [Row(layer, name, *found[name]) for name in names]


def _decoder(family: Family) -> Family:
    known = [decoder.model_type for decoder in DECODERS]
    fail_unless(
        family in DECODERS,
        f"theirs: expected a decoder, one of {', '.join(known)}, got {family.model_type}. Compare logits by "
        "interop.difference.",
    )
    return family


def _model_type(theirs: Any) -> str:
    kind = getattr(getattr(theirs, "config", None), "model_type", None)
    fail_unless(
        isinstance(kind, str) and hasattr(theirs, "named_modules"),
        f"theirs: expected a folder or a model of transformers, got {type(theirs).__name__}.",
        TypeError,
    )
    return kind


def _check_sizes(theirs: Any, ours: TransformerLM) -> None:
    names = {"depth": "num_hidden_layers", "width": "hidden_size", "vocab_size": "vocab_size"}
    wrong = [
        f"{own} = {getattr(theirs.config, name)}, got {getattr(ours.config, own)}"
        for own, name in names.items()
        if getattr(theirs.config, name) != getattr(ours.config, own)
    ]
    fail_unless(
        ours.final_norm is not None, "ours: expected a model with a last norm, as theirs, got norm_place = 'post'."
    )
    fail_unless(
        not wrong, f"ours: expected a model of the sizes of theirs, {'; '.join(wrong)}. Load it from the same folder."
    )
