"""Rewrite code for version 0.1 to the names of version 0.2.

    python -m jax_attention.rename FILES        rewrites the files in place and lists those that changed

A name is renamed where the file imports it: `models.Body` after `from jax_attention import models`, and `Body` after
`from jax_attention.models import Body`. Which class a method or keyword argument belongs to cannot be seen from the
text, so those of `METHODS` and `KEYWORDS` are renamed wherever a file that imports jax_attention calls something of
that name. Names that have left the library are reported. The table in CHANGELOG.md is the same as the one here.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from jax_attention.core.output import print_error, print_line, safe_streams

PACKAGE = "jax_attention"

NAMES: dict[str, str] = {
    "Attended": "AttentionOutput",
    "attend_heads_with_stats": "attend_with_stats_heads",
    "scores.PlainScore": "scores.UserScore",
    "mods.PlainMod": "mods.UserMod",
    "masks.PlainMask": "masks.UserMask",
    "normalizers.PlainNormalizer": "normalizers.UserNormalizer",
    "nn.Learned": "nn.LearnedPart",
    "nn.adapted": "nn.apply_adapters",
    "models.Body": "models.TransformerStack",
    "models.BodyOutput": "models.StackOutput",
    "models.BodyPair": "models.EncoderDecoderStack",
    "models.Captured": "models.CaptureResult",
    "models.Given": "models.ConditionedDecoder",
    "models.Layer": "models.TransformerLayer",
    "models.PairConfig": "models.EncoderDecoderConfig",
    "models.Pure": "models.PureModel",
    "models.pure": "models.pure_model",
    "models.scanned": "models.scan_layers",
    "models.unrolled": "models.unroll_layers",
    "training.Band": "training.ConfidenceInterval",
    "training.Fitted": "training.FitResult",
    "training.pair_loss": "training.seq2seq_loss",
    "decoding.Generated": "decoding.GenerationResult",
    "decoding.Piece": "decoding.StreamChunk",
    "decoding.Rule": "decoding.LogitTransform",
    "data.Packed": "data.PackedDocuments",
    "data.PairBatch": "data.Seq2SeqBatch",
    "data.Pairs": "data.Seq2SeqBatches",
    "data.padded": "data.pad_rows",
    "interop.Cause": "interop.Diagnosis",
    "interop.Report": "interop.ParityReport",
    "interop.Row": "interop.ParityRow",
    "viz.strip": "viz.text_heatmap",
}
"""Public names by their path below `jax_attention`."""

METHODS = {
    "given": "condition",
    "recall": "cross_attend",
    "recall_weights": "cross_attention_weights",
    "remember": "project_memory",
    "remembered": "encode_memory",
    "replaced": "replace",
    "stacked": "with_scan",
}
"""Methods of modules and configs."""

KEYWORDS = {
    ("MultiHeadAttention", "extra_key"): "bias_kv",
    ("MultiHeadAttention", "joined_norm"): "norm_all_heads",
    ("beam_search", "rules"): "transforms",
    ("difference", "found"): "actual",
    ("token_accuracy", "found"): "predictions",
    ("token_accuracy", "wanted"): "targets",
}
"""Keyword arguments, by the name of the function that is called."""

STRINGS = {("implementation", "linear_time"): "linear_attention", ("qk_norm", "joined"): "all_heads"}
"""Strings, by the keyword argument that they are passed to."""

REMOVED = {
    name: "experiments.corpora, which is not part of the wheel"
    for name in ("data.Grammar", "data.Passage", "data.passages", "data.Report", "data.reports")
} | {"training.bootstrap": "training.t_interval, whose intervals are wider for few values"}
"""Names that have left the library, and what to use instead."""


class Edit(NamedTuple):
    """Replacement of a span of bytes; `ast` counts columns in bytes of UTF-8."""

    start: int
    end: int
    text: str


def rename(source: str) -> tuple[str, list[str]]:
    """Python source with the names of version 0.2, and a warning for each name that has left the library.

    Example:
        >>> from jax_attention.rename import rename
        >>> print(rename("from jax_attention import models\\nmodels.Body(config)")[0])
        from jax_attention import models
        models.TransformerStack(config)
    """
    tree = ast.parse(source)
    paths = _imported_paths(tree)
    if not paths:
        return source, []
    data = source.encode()
    lines = data.split(b"\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    edits, warnings = set(), []
    for node, old, new in _renamings(tree, paths):
        if new is None:
            warnings.append(f"line {node.lineno}: {old} has left the library; use {REMOVED[old]}")
            continue
        end = starts[node.end_lineno - 1] + node.end_col_offset
        start = starts[node.lineno - 1] + node.col_offset
        word = old.encode()
        # The old word is the last one of an attribute, the first one of a keyword or an imported name.
        at = data.rindex(word, start, end) if isinstance(node, ast.Attribute) else data.index(word, start, end)
        edits.add(Edit(at, at + len(word), new))
    for edit in sorted(edits, reverse=True):
        data = data[: edit.start] + edit.text.encode() + data[edit.end :]
    return data.decode(), warnings


def _imported_paths(tree: ast.AST) -> dict[str, str]:
    """Local name -> its path below the package ("" for the package itself)."""
    paths = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    path = alias.name.partition(".")[2] if alias.asname else ""
                    paths[alias.asname or PACKAGE] = path
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            folder = node.module.partition(".")[2]
            for alias in node.names:
                paths[alias.asname or alias.name] = f"{folder}.{alias.name}".lstrip(".")
    return paths


def _renamings(tree: ast.AST, paths: Mapping[str, str]) -> Iterator[tuple[ast.expr, str, str | None]]:
    """Nodes with the word in them to replace and the new word; None where the name has left the library."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    local = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                path = paths.get(alias.asname or alias.name, "")
                if path in REMOVED:
                    yield alias, path, None
                elif path in NAMES:
                    new = NAMES[path].rpartition(".")[2]
                    yield alias, alias.name, new
                    if alias.asname is None:
                        local[alias.name] = new
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in local:
            yield node, node.id, local[node.id]
        elif isinstance(node, ast.Attribute):
            path = _path(node, paths)
            if path in REMOVED:
                yield node, path, None
            elif path in NAMES:
                yield node, node.attr, NAMES[path].rpartition(".")[2]
            elif path is None and node.attr in METHODS and id(node) in called:
                yield node, node.attr, METHODS[node.attr]
        elif isinstance(node, ast.Call):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            for keyword in node.keywords:
                if (function, keyword.arg) in KEYWORDS:
                    yield keyword, keyword.arg, KEYWORDS[function, keyword.arg]
                if isinstance(keyword.value, ast.Constant) and (keyword.arg, keyword.value.value) in STRINGS:
                    yield keyword.value, keyword.value.value, STRINGS[keyword.arg, keyword.value.value]


def _path(node: ast.expr, paths: Mapping[str, str]) -> str | None:
    """The path below the package that an expression such as `ja.models.Body` names, or None."""
    if isinstance(node, ast.Name):
        return paths.get(node.id)
    if isinstance(node, ast.Attribute):
        inner = _path(node.value, paths)
        return None if inner is None else f"{inner}.{node.attr}".lstrip(".")
    return None


def main(files: list[str]) -> int:
    """Rewrite files in place; returns 1 where a name has left the library."""
    unresolved = 0
    for name in files:
        path = Path(name)
        source = path.read_text(encoding="utf-8")
        renamed, warnings = rename(source)
        if renamed != source:
            path.write_text(renamed, encoding="utf-8")
            print_line(f"{name}: renamed")
        for warning in warnings:
            print_error(f"{name}: {warning}")
        unresolved += len(warnings)
    return int(unresolved > 0)


if __name__ == "__main__":
    with safe_streams() as output:
        output.required = False  # the files are to be rewritten, whether somebody reads the list or not
        sys.exit(main(sys.argv[1:]))
