"""Parts of a rule written on the command line: `causal() & sliding_window(64)` becomes the mask.

`ast` reads a small part of Python's syntax: calls of catalogue names with numbers, strings, lists and other such calls,
tuples, and `& | ~` between masks. Python evaluates nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jax_attention import masks, mods, normalizers, positions, scores
from jax_attention.cli.language import did_you_mean
from jax_attention.core.text import quote

_MODULES = {
    "score": scores,
    "mods": mods,
    "mask": masks,
    "normalize": normalizers,
    "rope": positions,
    "local_rope": positions,
}
_ARGUMENTS = (*positions.CATALOGUE, positions.linear_scaling, positions.dynamic_scaling, positions.llama3_scaling)
_AS_PART: dict[str, Callable] = {
    "score": scores.as_score,
    "mods": mods.as_mod,
    "mask": masks.as_mask,
    "normalize": normalizers.as_normalizer,
}
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.BitAnd: lambda a, b: a & b,
    ast.BitOr: lambda a, b: a | b,
}


MAX_LENGTH, MAX_DEPTH = 10_000, 100
"""Limits of an expression, far beyond useful ones: a mask is evaluated recursively."""


class ExpressionError(ValueError):
    """An expression that names no part."""


def parse(part: str, text: str, own: Mapping[str, Callable] | None = None) -> Any:
    """The part that `text` describes; `part` is "score", "mods", "mask", "normalize", "rope" or "local_rope".

    `own` has functions and classes of the user: their names without brackets are the functions themselves.
    """
    module, own = _MODULES[part], own or {}
    names = {factory.__name__: factory for factory in (*_ARGUMENTS, positions.yarn_scaling, *module.CATALOGUE)} | own
    if text.strip() in ("None", "none"):
        return () if part == "mods" else None
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"{part}: expected at most {MAX_LENGTH:,} characters, got {quote(text)}.")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        problem = getattr(error, "msg", None) or "it is nested too deeply, or has a character that Python does not read"
        raise ExpressionError(
            f"{part}: expected an expression such as {_example(part)}, got {quote(text)}: {problem}."
        ) from None
    allowed = {"rotary"} if module is positions else {factory.__name__ for factory in module.CATALOGUE}
    try:
        result = _evaluate(part, tree, names, own)
    except (TypeError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise (
            error if isinstance(error, ExpressionError) else ExpressionError(f"{part}: in {quote(text)}: {error}")
        ) from None
    result = result if part != "mods" or isinstance(result, tuple) else (result,)
    result = tuple(_as_part(part, x, own) for x in result) if part == "mods" else _as_part(part, result, own)
    for x in result if part == "mods" else (result,):
        kind = positions.Rotary if module is positions else getattr(module, part.removesuffix("s").capitalize(), None)
        if not isinstance(x, kind or normalizers.Normalizer):
            raise ExpressionError(
                f"{part}: expected a call of {', '.join(sorted(allowed))}, got {quote(x)}. Write {_example(part)}."
            )
    return result


def _as_part(part: str, x: Any, own: Mapping[str, Callable]) -> Any:
    """A function of the user as the part that it computes."""
    if x not in own.values() or part not in _AS_PART:
        return x
    return _AS_PART[part](x)


def _evaluate(
    part: str, node: ast.AST, names: Mapping[str, Callable], own: Mapping[str, Callable], depth: int = 0
) -> Any:
    if depth > MAX_DEPTH:
        raise ExpressionError(f"{part}: expected at most {MAX_DEPTH} operators and calls inside each other, got more.")

    def inner(child: ast.AST) -> Any:
        return _evaluate(part, child, names, own, depth + 1)

    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
            return -node.operand.value
        case ast.UnaryOp(op=ast.Invert()):
            return ~inner(node.operand)
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](inner(node.left), inner(node.right))
        case ast.Tuple():
            return tuple(inner(item) for item in node.elts)
        case ast.List():
            return np.asarray([inner(item) for item in node.elts], np.float32)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in names:
            return names[name](*map(inner, node.args), **{k.arg: inner(k.value) for k in node.keywords if k.arg})
        case ast.Name(id=name) if name in own:
            return own[name]
        case ast.Name(id=name) if name in names:
            raise ExpressionError(f"{part}: expected a call, got the factory {name} itself. Write {name}().")
    function = node.func if isinstance(node, ast.Call) else node
    hint = did_you_mean(function.id, names) if isinstance(function, ast.Name) else ""
    raise ExpressionError(
        f"{part}: expected calls of {', '.join(sorted(names))} with numbers, got {quote(ast.unparse(node))}."
        f"{hint or f' An example: {_example(part)}.'}"
    )


def _example(part: str) -> str:
    examples = {
        "score": "'cosine()'",
        "mods": "'soft_cap(30.0), temperature(2.0)'",
        "mask": "'causal() & sliding_window(64)'",
        "normalize": "'softmax(plus_one=True)'",
        "rope": "'rotary(base=500000.0)'",
        "local_rope": "'rotary(base=10000.0)'",
    }
    return examples[part]
