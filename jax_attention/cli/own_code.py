"""Code of the user's own on the command line: it runs only if the user names its file or module."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from jax_attention.core.checks import fail_unless
from jax_attention.core.text import quote_path


@dataclass(frozen=True, kw_only=True)
class OwnCode:
    """Code that a command may run.

    Args:
        rules: Python file with rules of your own, which is run. Expressions may call its functions and classes, and the
            config of a run may name them.
        allow_code: modules that the config of a run may name, which are imported then. Name only those that you trust.
    """

    rules: Path | None = None
    allow_code: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of modules that a config may name."""
        return self.allow_code if self.rules is None else (*self.allow_code, load_rules(self.rules).__name__)

    @property
    def names(self) -> dict[str, Callable]:
        """Functions and classes that expressions may call."""
        if self.rules is None:
            return {}
        module = load_rules(self.rules)
        return {name: x for name, x in vars(module).items() if _is_defined_in(module, x) and not name.startswith("_")}


def _is_defined_in(module: ModuleType, x: Any) -> bool:
    return callable(x) and getattr(x, "__module__", None) == module.__name__


@functools.cache
def load_rules(path: Path) -> ModuleType:
    """Run a Python file as the module of its name, so that a saved config can name what it defines."""
    name = path.stem
    fail_unless(
        path.is_file() and path.suffix == ".py" and name.isidentifier(),
        f"rules: expected a Python file whose name is that of a module, got {quote_path(path)}.",
    )
    fail_unless(
        _is_free(name) or _is_same_file(name, path),
        f"rules: expected a name that no installed module has, got {quote_path(path)}. Rename the file.",
    )
    spec: Any = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(
            f"rules: expected a file that runs, got {type(error).__name__} in {quote_path(path)}: {error}."
        ) from error
    return module


def _is_free(name: str) -> bool:
    return name not in sys.modules and importlib.util.find_spec(name) is None


def _is_same_file(name: str, path: Path) -> bool:
    """Whether the module of that name, imported or not, is this file itself: it may lie on the path of modules."""
    spec = sys.modules[name].__spec__ if name in sys.modules else importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path.resolve()
