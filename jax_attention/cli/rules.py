"""`jax-attention rules`: the catalogue of attention rules."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated

import tyro

import jax_attention
from jax_attention import masks, mods, normalizers, positions, scores
from jax_attention.cli.language import did_you_mean
from jax_attention.cli.output import print_line, table
from jax_attention.core.text import quote

PARTS: dict[str, ModuleType] = {
    "score": scores,
    "mod": mods,
    "mask": masks,
    "normalize": normalizers,
    "position": positions,
}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """List every attention rule, or explain one.

    Args:
        name: one rule, such as `sliding_window`; all rules if left out.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None

    def run(self) -> None:
        """Print the catalogue, or the documentation of one rule."""
        factories = {f.__name__: (part, f) for part, module in PARTS.items() for f in module.CATALOGUE}
        if self.name is None:
            rows = [(part, name, summary(f)) for name, (part, f) in factories.items()]
            table(("part", "rule", "what it does"), rows)
            print_line("\nDocumentation of one rule: jax-attention rules NAME. Pages with pictures: docs/rules/.")
            return
        if self.name not in factories:
            hint = did_you_mean(self.name, factories)
            raise ValueError(f"name: expected one of {', '.join(factories)}, got {quote(self.name)}.{hint}")
        part, f = factories[self.name]
        module = PARTS[part].__name__.removeprefix(jax_attention.__name__ + ".")
        print_line(f"{module}.{self.name}({', '.join(inspect.signature(f).parameters)})\n\n{inspect.getdoc(f) or ''}")


def summary(factory: object) -> str:
    """The first sentence of a docstring."""
    return (inspect.getdoc(factory) or "").split("\n\n")[0].replace("\n", " ")
