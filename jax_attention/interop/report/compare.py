"""Does a PyTorch model compute the same as ours? Both run on the same tokens, and each part on the same input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jax_attention.core.checks import check_instance, fail_unless
from jax_attention.interop.family import Config
from jax_attention.interop.folder import read_config
from jax_attention.interop.hugging_face import described, family_of, load
from jax_attention.interop.report.halves import Half, configs_of, has_head, run_theirs
from jax_attention.interop.report.ours import Run, alone, judged, streams
from jax_attention.interop.report.points import AFTER, BEFORE
from jax_attention.interop.report.recognise import recognise
from jax_attention.interop.report.result import ParityReport
from jax_attention.interop.report.rounding import ParityRow, compared, longest_sum
from jax_attention.interop.report.theirs import check_model, config_of, dtype_of, eps_of, load_theirs, ours_from
from jax_attention.interop.report.tokens import chosen, window_notes
from jax_attention.models import EncoderDecoder, TransformerLM
from jax_attention.models.config_checks import Dtype

if TYPE_CHECKING:
    from jaxtyping import Array, Int

NO_HEAD = "The folder has no head: logits are not compared."


def compare(
    theirs: Any,
    ours: TransformerLM | EncoderDecoder | None = None,
    *,
    tokens: Int[Array, "*lead T"] | None = None,
    text: str | None = None,
    source: Int[Array, "*lead S"] | str | None = None,
    dtype: str | None = "float32",
) -> ParityReport:
    """Compare a language model of transformers with ours, layer by layer, and name the first wrong layer and its cause.

        difference(layer, point) = max |ours_point(x) - theirs_point(x)|,        x = what theirs got at that point
        allowed = sqrt(layers) (8 eps + sqrt(n) min(eps, 2^-23)) / 2 (largest expected + sensitivity)

    Of that, n is the number of terms in the longest sum, sensitivity the change of the result if every input changed by
    its own size, and layers is 1 but for whole models, where it counts those that came before.

    A cause is recognised by a counterfactual: ours is changed to do as theirs might (tanh in place of erf, another
    epsilon, mask, scale, rotary embedding, a kernel transposed), and what makes the difference vanish is named.

    Encoders, decoders and encoder–decoders are compared; of the last the encoder first, then the decoder beside what
    their encoder made of the source.

    Args:
        theirs: a folder with `config.json` and weights, or a model of transformers in memory, compared as it is.
        ours: the model to compare with; None loads the same folder, or a copy of the model in memory.
        tokens: `[T]` or `[B, T]`, negative where there is padding, before or behind the tokens; of an encoder–decoder
            the target. None: two rows of random ones, one of them padded, long enough to leave a window of up to 250
            keys. Types of tokens are random where a model has several.
        text: instead of tokens; needs a folder with a tokenizer.
        source: what an encoder–decoder reads, in the same ways: `[S]`, `[B, S]`, a text, or None.
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
    if ours is not None:
        check_instance(
            "ours", ours, (TransformerLM, EncoderDecoder), "a models.TransformerLM or EncoderDecoder, or None"
        )
    known = (None, *get_args(Dtype))
    fail_unless(dtype in known, f"dtype: expected one of {', '.join(map(str, known))}, got {dtype!r}.")
    folder = Path(theirs) if isinstance(theirs, (str, Path)) else None
    family = family_of({"model_type": _model_type(theirs)} if folder is None else read_config(folder))
    if folder is None:
        check_model(theirs, family.architecture, dtype)
        expected = config_of(theirs)
    else:
        expected = described(folder)[1]
        theirs = load_theirs(folder, family.architecture, dtype)
    dtype = dtype_of(theirs)
    if ours is None:
        ours = ours_from(theirs, dtype) if folder is None else load(folder, dtype=dtype, param_dtype=dtype)
    _check_sizes(expected, ours.config)
    configs = configs_of(ours.config)
    reads = chosen(configs, folder, tokens, text, source)
    eps = eps_of(dtype, *(config.dtype for config in configs.values()))
    halves = run_theirs(theirs, family, ours, reads, eps)
    rows = tuple(row for half, runs in zip(halves, streams(halves), strict=True) for row in _rows(half, runs))
    suspect = next((row for row in rows if not row.equal), None)
    cause = None if suspect is None else recognise(suspect, halves)
    title = f"{family.architecture} {'in memory' if folder is None else f'of {folder}'}"
    notes = [note for half, config in configs.items() for note in window_notes(config, reads[half].seen)]
    notes += [] if has_head(family, ours.config) else [NO_HEAD]
    return ParityReport(title, dtype, rows, halves[0].scale.relative(1), cause, tuple(notes))


def _rows(half: Half, runs: Sequence[Run]) -> Iterator[ParityRow]:
    """In the order of the computation: what is local, then what has come of all that was before it."""
    run, moved = runs
    seen, scale, config = half.read.seen, half.scale, half.model.config
    n = longest_sum("block", config, scale.length)
    outside = half.trace.names(None)
    yield from _local(half, None, [point.name for point in BEFORE if point.name in outside])
    for layer in range(config.depth):
        yield from _local(half, layer, half.trace.names(layer))
        allowed = scale.relative(n, half.before + layer + 1)
        three = run.hidden[layer], moved.hidden[layer], half.trace.outputs[layer, "block"]
        yield ParityRow(layer, "stream", *compared(*three, seen, scale, allowed), half.name)
    yield from _local(half, None, [point.name for point in AFTER if point.name in outside])
    if "head" in outside:
        allowed = scale.relative(n, half.before + config.depth + 1)
        three = run.logits, moved.logits, half.trace.outputs[None, "head"]
        yield ParityRow(None, "logits", *compared(*three, seen, scale, allowed), half.name)


def _local(half: Half, layer: int | None, names: Iterable[str]) -> Iterator[ParityRow]:
    inputs, outputs = ({name: x[layer, name] for name in names} for x in (half.trace.inputs, half.trace.outputs))
    found = judged(alone(half.model, layer or 0), half, inputs, outputs, half.read.seen)
    return (ParityRow(layer, name, *found[name], half.name) for name in names)


def _model_type(theirs: Any) -> str:
    kind = getattr(getattr(theirs, "config", None), "model_type", None)
    fail_unless(
        isinstance(kind, str) and hasattr(theirs, "named_modules"),
        f"theirs: expected a folder or a model of transformers, got {type(theirs).__name__}.",
        TypeError,
    )
    return kind


def _check_sizes(theirs: Config, ours: Config) -> None:
    fail_unless(
        isinstance(ours, type(theirs)),
        f"ours: expected a model of {type(theirs).__name__}, as theirs, got one of {type(ours).__name__}. Load it from "
        "the same folder.",
        TypeError,
    )
    pairs = [(half, own, configs_of(ours)[half]) for half, own in configs_of(theirs).items()]
    wrong = [
        f"{half}{'.' * bool(half)}{name} = {getattr(own, name)}, got {getattr(other, name)}"
        for half, own, other in pairs
        for name in ("depth", "width", "vocab_size")
        if getattr(own, name) != getattr(other, name)
    ]
    fail_unless(
        not wrong, f"ours: expected a model of the sizes of theirs, {'; '.join(wrong)}. Load it from the same folder."
    )
