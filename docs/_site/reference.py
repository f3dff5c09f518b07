"""The API reference: a page for each public module, with every public name.

Which names are public is what the modules say: `__all__`, or without it every function and class that the module itself
defines under a name without an underscore.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from types import ModuleType

MODULES = (
    "jax_attention",
    "jax_attention.scores",
    "jax_attention.mods",
    "jax_attention.masks",
    "jax_attention.normalizers",
    "jax_attention.positions",
    "jax_attention.parts",
    "jax_attention.testing",
    "jax_attention.cache",
    "jax_attention.nn",
    "jax_attention.models",
    "jax_attention.data",
    "jax_attention.training",
    "jax_attention.decoding",
    "jax_attention.interop",
    "jax_attention.viz",
)
"""Public modules, in the order of the floors."""

INTRODUCTION = """# API reference

Every public name, with signature, equation, shapes, errors and an example.

Shapes in signatures are those of [jaxtyping](https://docs.kidger.site/jaxtyping/api/array/).
`Float[Array, "*batch T H"]` is a float array with any number of batch axes before `T` and `H`; `*#batch` means that
these axes broadcast against those of the other arguments. `"*batch"` alone is an array over batch and head axes, such
as `[N]`.

| axis | meaning |
|---|---|
| `B` | batch |
| `T`, `S` | query length, key length |
| `N`, `K` | query heads, key heads; N is a multiple of K |
| `H`, `Hk` | features of a query, of a key; they may differ for `general`, `additive` and `concat` |
| `E` | features of a value |
| `F`, `A` | features of a feature map, hidden units of `additive` |
| `D`, `V`, `L` | model size, vocabulary size, layers |
"""


def public_names(module: ModuleType) -> list[str]:
    """The public names of a module, without its submodules and its catalogue of rules; functions come first."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name, x in vars(module).items() if getattr(x, "__module__", None) == module.__name__]
    shown = [
        x for x in names if not x.startswith("_") and not inspect.ismodule(getattr(module, x)) and x != "CATALOGUE"
    ]
    return sorted(shown, key=lambda name: (inspect.isclass(getattr(module, name)), name.lower()))


def page_name(module: str) -> str:
    """File name of a module's page."""
    return f"{module.removeprefix('jax_attention.')}.md"


def pages() -> dict[str, str]:
    """Path and Markdown of every page of the reference."""
    written = {}
    for name in MODULES:
        module = import_module(name)
        blocks = "\n\n".join(f"::: {name}.{public}" for public in public_names(module))
        written[f"reference/{page_name(name)}"] = f"# `{name}`\n\n{inspect.getdoc(module)}\n\n{blocks}\n"
    summaries = {name: inspect.getdoc(import_module(name)).splitlines()[0] for name in MODULES}
    rows = "".join(f"| [`{name}`]({page_name(name)}) | {text} |\n" for name, text in summaries.items())
    written["reference/index.md"] = f"{INTRODUCTION}\n| module | what it holds |\n|---|---|\n{rows}"
    return written
