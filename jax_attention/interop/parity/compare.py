"""Comparison of a model of transformers with a JAX model: both on the same tokens, and each part on the same input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jax_attention.core.checks import check_instance, fail_unless
from jax_attention.core.tree_paths import check_finite
from jax_attention.interop.hf.config import family_of, read_config
from jax_attention.interop.hf.family import Config
from jax_attention.interop.hf.load_save import load
from jax_attention.interop.hf.opened_model import open_model
from jax_attention.interop.parity.diagnose import diagnose
from jax_attention.interop.parity.hf_run import (
    check_hf_model,
    embedding_dtype,
    largest_eps,
    load_hf_model,
    to_jax_config,
    to_jax_model,
)
from jax_attention.interop.parity.jax_run import StackRun, compare_points, run_whole_model, single_layer
from jax_attention.interop.parity.points import AFTER, BEFORE
from jax_attention.interop.parity.report import ParityReport
from jax_attention.interop.parity.rounding import ParityRow, difference_and_allowed, longest_sum
from jax_attention.interop.parity.stacks import Stack, has_head, split_config, trace_stacks
from jax_attention.interop.parity.token_batch import choose_tokens, window_notes
from jax_attention.models import EncoderDecoder, TransformerLM
from jax_attention.models.config_checks import Dtype

if TYPE_CHECKING:
    from jaxtyping import Array, Int

NO_HEAD = "The folder has no head: logits are not compared."


def compare(
    hf_model: Any,
    jax_model: TransformerLM | EncoderDecoder | None = None,
    *,
    tokens: Int[Array, "*batch T"] | None = None,
    text: str | None = None,
    source: Int[Array, "*batch S"] | str | None = None,
    dtype: str | None = "float32",
    progress: Callable[[str], None] | None = None,
) -> ParityReport:
    """Compare a language model of transformers with a JAX model, layer by layer; name the first wrong layer and its
    cause.

        difference(layer, point) = max |jax_point(x) - hf_point(x)|,        x = input of that point in transformers
        allowed = sqrt(layers) (8 eps + sqrt(n) min(eps, 2^-23)) / 2 (largest expected + sensitivity)

    Here n is the number of terms in the longest sum; the sensitivity is the change of the result if every input changed
    by its own size; layers is 1 for a part, and for the whole model the number of layers so far.

    A cause is found by counterfactuals: the JAX model is changed to what transformers may be doing (tanh in place of
    erf, another epsilon, mask, scale or rotary embedding, a transposed kernel), and the change that makes the
    difference vanish is the cause.

    Encoders, decoders and encoder-decoders are compared; of the last the encoder first, and then the decoder with the
    memory that the encoder of transformers made of the source.

    Args:
        hf_model: a folder with `config.json` and weights, or a model of transformers in memory, compared as it is.
        jax_model: the model to compare with; None loads the same folder, or a copy of the model in memory.
        tokens: `[T]` or `[B, T]`, negative where there is padding, before or after the tokens; the target of an
            encoder-decoder. None: two random rows, one with padding, long enough to leave a window of up to 250 keys.
            Token types are random where a model has several.
        text: instead of tokens; needs a folder with a tokenizer.
        source: what the encoder of an encoder-decoder reads: `[S]`, `[B, S]`, a text, or None, as above.
        dtype: to compute in; None is the dtype of the file or of the model in memory.
        progress: called with a line before each part of the work, such as `print`: a large model takes minutes.

    Returns:
        A `ParityReport`: `equal`, `verdict`, `cause`, `rows`, `table()`, `html()`; print it to see a table.

    Raises:
        FileNotFoundError: if there is no such folder.
        ImportError: if PyTorch or transformers is not installed.
        ValueError: if the family is unknown, the config and the weights of a folder do not fit together, the
            weights are not finite, `jax_model` has other sizes, or tokens do not fit.
        TypeError: if `hf_model` is neither a folder nor a model of transformers, or is in another dtype.

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
    if jax_model is not None:
        check_instance(
            "jax_model",
            jax_model,
            (TransformerLM, EncoderDecoder),
            "a models.TransformerLM or EncoderDecoder, or None",
        )
    known = (None, *get_args(Dtype))
    fail_unless(dtype in known, f"dtype: expected one of {', '.join(map(str, known))}, got {dtype!r}.")
    announce = (lambda line: None) if progress is None else progress
    folder = Path(hf_model) if isinstance(hf_model, (str, Path)) else None
    if folder is None:
        family = family_of({"model_type": _model_type(hf_model)})
        check_hf_model(hf_model, family.architecture, dtype)
        expected = to_jax_config(hf_model)
    else:
        opened = open_model(folder, param_dtype=dtype)  # refuses what does not fit before transformers reads it
        family, expected = opened.family, read_config(folder)[1]
        announce(f"loading {folder} in transformers")
        hf_model = load_hf_model(folder, family.architecture, dtype)
    dtype = embedding_dtype(hf_model)
    if jax_model is None and folder is None:
        jax_model = to_jax_model(hf_model, dtype)
    elif jax_model is None:
        announce(f"loading {folder} in jax_attention")
        jax_model = load(folder, dtype=dtype, param_dtype=dtype)
        check_finite(jax_model, "hf_model: expected a folder with finite weights, as nothing can be compared with NaN")
    _check_sizes(expected, jax_model.config)
    configs = split_config(jax_model.config)
    batches = choose_tokens(configs, folder, tokens, text, source)
    eps = largest_eps(dtype, *(config.dtype for config in configs.values()))
    announce(f"running transformers on {sum(x.tokens.size for x in batches.values())} tokens")
    stacks = trace_stacks(hf_model, family, jax_model, batches, eps)
    announce("running jax_attention on the same tokens")
    runs = run_whole_model(stacks)
    announce("comparing every part, layer by layer")
    rows = tuple(row for stack, both in zip(stacks, runs, strict=True) for row in _rows(stack, both))
    suspect = next((row for row in rows if not row.equal), None)
    if suspect is not None:
        announce(f"looking for the cause of the difference in {' '.join((suspect.place, suspect.point)).strip()}")
    cause = None if suspect is None else diagnose(suspect, stacks)
    title = f"{family.architecture} {'in memory' if folder is None else f'of {folder}'}"
    notes = [note for name, config in configs.items() for note in window_notes(config, batches[name].is_token)]
    notes += [] if has_head(family, jax_model.config) else [NO_HEAD]
    return ParityReport(title, dtype, rows, stacks[0].tolerance.relative(1), cause, tuple(notes))


def _rows(stack: Stack, runs: Sequence[StackRun]) -> Iterator[ParityRow]:
    """Rows of one stack in the order of the computation: the parts of each layer, then the whole model so far."""
    run, moved = runs
    is_token, tolerance, config = stack.batch.is_token, stack.tolerance, stack.unrolled.config
    n = longest_sum("block", config, tolerance.length)
    outside = stack.trace.names(None)
    yield from _local_rows(stack, None, [point.name for point in BEFORE if point.name in outside])
    for layer in range(config.depth):
        yield from _local_rows(stack, layer, stack.trace.names(layer))
        relative = tolerance.relative(n, stack.layers_before + layer + 1)
        outputs = run.hidden[layer], moved.hidden[layer], stack.trace.outputs[layer, "block"]
        yield ParityRow(layer, "stream", *difference_and_allowed(*outputs, is_token, tolerance, relative), stack.name)
    yield from _local_rows(stack, None, [point.name for point in AFTER if point.name in outside])
    if "head" in outside:
        relative = tolerance.relative(n, stack.layers_before + config.depth + 1)
        outputs = run.logits, moved.logits, stack.trace.outputs[None, "head"]
        yield ParityRow(None, "logits", *difference_and_allowed(*outputs, is_token, tolerance, relative), stack.name)


def _local_rows(stack: Stack, layer: int | None, names: Iterable[str]) -> Iterator[ParityRow]:
    """Rows of some points of one layer, each computed from the input that it had in transformers."""
    inputs = {name: stack.trace.inputs[layer, name] for name in names}
    outputs = {name: stack.trace.outputs[layer, name] for name in names}
    results = compare_points(single_layer(stack.unrolled, layer or 0), stack, inputs, outputs, stack.batch.is_token)
    return (ParityRow(layer, name, *results[name], stack.name) for name in names)


def _model_type(hf_model: Any) -> str:
    model_type = getattr(getattr(hf_model, "config", None), "model_type", None)
    fail_unless(
        isinstance(model_type, str) and hasattr(hf_model, "named_modules"),
        f"hf_model: expected a folder or a model of transformers, got {type(hf_model).__name__}.",
        TypeError,
    )
    return model_type


def _check_sizes(expected: Config, actual: Config) -> None:
    """Check that a JAX model has the kind and the sizes of the model of transformers."""
    fail_unless(
        isinstance(actual, type(expected)),
        f"jax_model: expected a model of {type(expected).__name__}, as hf_model is, got one of "
        f"{type(actual).__name__}. Load it from the same folder.",
        TypeError,
    )
    stacks = [(name, one, split_config(actual)[name]) for name, one in split_config(expected).items()]
    wrong = [
        f"{stack}{'.' * bool(stack)}{name} = {getattr(one, name)}, got {getattr(other, name)}"
        for stack, one, other in stacks
        for name in ("depth", "width", "vocab_size")
        if getattr(one, name) != getattr(other, name)
    ]
    fail_unless(
        not wrong,
        f"jax_model: expected a model of the sizes of hf_model, {'; '.join(wrong)}. Load it from the same folder.",
    )
