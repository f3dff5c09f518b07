"""Imports only go down the floors and never in a circle, and a cold import needs no optional package."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys

from tests.house.sources import HOUSE, ROOT, SOURCES

PARTS = ("scores", "mods", "masks", "normalizers", "positions", "dropout", "cache")
FLOORS = (
    ("jax_attention.core",),
    tuple(f"jax_attention.{name}" for name in PARTS),
    ("jax_attention.implementations",),
    ("jax_attention.attention", "jax_attention.parts"),
    ("jax_attention",),
    ("jax_attention.nn",),
    ("jax_attention.models", "jax_attention.data"),
    ("jax_attention.training", "jax_attention.decoding", "jax_attention.testing"),
    ("jax_attention.interop", "jax_attention.viz"),
    ("jax_attention.cli", "jax_attention.rename"),
    ("experiments", "benchmarks", "docs", "tests"),
)


def floor(module: str) -> int:
    """From the bottom; the package's own `__init__` is above attention and below nn."""
    for height, names in enumerate(FLOORS):
        if any(module == name or (module.startswith(name + ".") and name != "jax_attention") for name in names):
            return height
    raise AssertionError(f"{module} stands on no floor: add it to FLOORS")


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def type_checking_only(tree: ast.Module) -> set[ast.AST]:
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return {inner for guard in guards for inner in ast.walk(guard)}


@functools.cache
def imports(module: str, run_time_only: bool = False) -> frozenset[str]:
    """Everything the module imports, also inside functions, by the full name of the module that is meant."""
    tree = tree_of(module)
    hidden = type_checking_only(tree) if run_time_only else set()
    found = set()
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import in line {node.lineno}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in SOURCES else node.module)
    return frozenset(found)


def internal_imports(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] in HOUSE}


def test_every_internal_import_exists():
    missing = [f"{name} imports {other}" for name in SOURCES for other in internal_imports(name) - set(SOURCES)]
    namespaces = {name.rpartition(".")[0] for name in SOURCES}
    assert [arrow for arrow in missing if arrow.split()[-1] not in namespaces] == []


def test_imports_only_go_down():
    arrows = [(name, other) for name in SOURCES for other in internal_imports(name)]
    assert len(arrows) > 100
    assert [f"{a} -> {b}" for a, b in arrows if floor(a) < floor(b)] == []


def test_imports_have_no_circle():
    order = list(graphlib.TopologicalSorter({name: internal_imports(name) for name in SOURCES}).static_order())
    assert set(order) >= set(SOURCES)


def test_implementations_never_import_each_other():
    top = "jax_attention.implementations"
    shared = {top, f"{top}.base", f"{top}.call", f"{top}.dense"}
    inside = [name for name in SOURCES if name.startswith("jax_attention.implementations.")]
    found = {(a, b) for a in inside for b in internal_imports(a) if b.startswith("jax_attention.implementations")}
    assert found
    whose = lambda name: name.split(".")[2]  # noqa: E731
    assert {(a, b) for a, b in found if b not in shared and whose(a) != whose(b)} == set()


def test_models_and_data_never_import_each_other():
    crossing = [
        (a, b)
        for a in SOURCES
        for b in internal_imports(a)
        if {a.split(".")[:2][-1], b.split(".")[:2][-1]} == {"models", "data"} and "tests" not in a.split(".")
    ]
    assert crossing == []


def test_chex_lives_in_one_file():
    users = {name for name in SOURCES if name.startswith("jax_attention") and "chex" in imports(name, True)}
    assert users == {"jax_attention.core.checks"}


def test_optional_packages_are_imported_inside_functions():
    optional = {"matplotlib", "tokenizers", "tensorboardX", "torch", "transformers", "rich", "orbax", "safetensors"}
    optional |= {"sacrebleu", "rouge_score", "nltk", "sklearn"}
    guilty = []
    for name in SOURCES:
        if name.startswith("jax_attention"):
            top = [node for node in tree_of(name).body if isinstance(node, (ast.Import, ast.ImportFrom))]
            found = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
            found |= {node.module for node in top if isinstance(node, ast.ImportFrom)}
            guilty += [(name, other) for other in found if other.split(".")[0] in optional]
    assert guilty == []


def test_only_nn_and_above_import_flax_at_the_top_of_a_file():
    below = [name for name in SOURCES if name.startswith("jax_attention") and floor(name) < floor("jax_attention.nn")]
    for name in below:
        top = [node for node in tree_of(name).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        found = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        found |= {node.module for node in top if isinstance(node, ast.ImportFrom)}
        assert {other.split(".")[0] for other in found} & {"flax", "optax", "jaxtyping", "torch"} == set(), name


# --- Cold import -----------------------------------------------------------------------------------------------------

COLD = """
import sys
BLOCKED = {"flax", "torch", "transformers", "matplotlib", "orbax", "optax", "tensorstore", "jaxtyping"}

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked by tests/house/test_imports.py")

sys.meta_path.insert(0, Wall())
import jax_attention, numpy as np
from jax_attention import attend, attend_heads, masks, scores
x = np.eye(3, dtype=np.float32)
print(attend(x, x, x, mask=masks.causal()).tolist()[0], sorted(BLOCKED & {name.split(".")[0] for name in sys.modules}))
"""


def test_cold_import_needs_no_optional_dependency():
    done = subprocess.run([sys.executable, "-c", COLD], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[1.0, 0.0, 0.0] []"
