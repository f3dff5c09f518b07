"""Guards of the house: imports go down, the README's tree is the disk, a cold import is cold, every public name is
pinned and documented, every example in a docstring runs, and what the style forbids is not there.
"""

from __future__ import annotations

import ast
import doctest
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import jax_attention
from jax_attention import (
    cache,
    data,
    decoding,
    masks,
    models,
    mods,
    nn,
    normalizers,
    positions,
    scores,
    training,
    viz,
)

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "jax_attention").rglob("*.py"))
HOUSE = ("jax_attention", "experiments", "benchmarks", "docs", "tests")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for top in HOUSE for path in sorted((ROOT / top).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}

# --- Imports ---------------------------------------------------------------------------------------------------------

VALUES = ("scores", "mods", "masks", "normalizers", "positions", "dropout", "cache")
FLOORS = (
    ("jax_attention.ground",),
    tuple(f"jax_attention.{name}" for name in VALUES),
    ("jax_attention.implementations",),
    ("jax_attention.dispatch",),
    ("jax_attention",),
    ("jax_attention.nn",),
    ("jax_attention.models", "jax_attention.data"),
    ("jax_attention.training", "jax_attention.decoding"),
    ("jax_attention.interop", "jax_attention.viz"),
    ("jax_attention.cli",),
    ("experiments", "benchmarks", "docs", "tests"),
)


def floor(module: str) -> int:
    """From the bottom; the package's own `__init__` is above dispatch and below nn."""
    for height, names in enumerate(FLOORS):
        if any(module == name or (module.startswith(name + ".") and name != "jax_attention") for name in names):
            return height
    raise AssertionError(f"{module} stands on no floor: add it to FLOORS")


def type_checking_only(tree: ast.Module) -> set[ast.AST]:
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return {inner for guard in guards for inner in ast.walk(guard)}


def imports(module: str, run_time_only: bool = False) -> set[str]:
    """Everything the module imports, also inside functions, by the full name of the module that is meant."""
    tree = TREES[module]
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
    return found


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] in HOUSE}


def test_every_import_of_ours_exists():
    missing = [f"{name} imports {other}" for name in SOURCES for other in ours(name) - set(SOURCES)]
    namespaces = {name.rpartition(".")[0] for name in SOURCES}
    assert [arrow for arrow in missing if arrow.split()[-1] not in namespaces] == []


def test_imports_only_go_down():
    arrows = [(name, other) for name in SOURCES for other in ours(name)]
    assert len(arrows) > 100
    assert [f"{a} -> {b}" for a, b in arrows if floor(a) < floor(b)] == []


def test_imports_have_no_circle():
    order = list(graphlib.TopologicalSorter({name: ours(name) for name in SOURCES}).static_order())
    assert set(order) >= set(SOURCES)


def test_implementations_never_import_each_other():
    top = "jax_attention.implementations"
    shared = {top, f"{top}.problem", f"{top}.sentence"}
    inside = [name for name in SOURCES if name.startswith("jax_attention.implementations.")]
    found = {(a, b) for a in inside for b in ours(a) if b.startswith("jax_attention.implementations")}
    assert found
    whose = lambda name: name.split(".")[2]  # noqa: E731
    assert {(a, b) for a, b in found if b not in shared and whose(a) != whose(b)} == set()


def test_models_and_data_never_import_each_other():
    crossing = [
        (a, b)
        for a in SOURCES
        for b in ours(a)
        if {a.split(".")[:2][-1], b.split(".")[:2][-1]} == {"models", "data"} and "tests" not in a.split(".")
    ]
    assert crossing == []


def test_chex_lives_in_one_file():
    users = {name for name in SOURCES if name.startswith("jax_attention") and "chex" in imports(name, True)}
    assert users == {"jax_attention.ground.checks"}


def test_optional_packages_are_imported_inside_functions():
    optional = {"matplotlib", "tokenizers", "tensorboardX", "torch", "transformers", "rich", "orbax", "safetensors"}
    guilty = []
    for name in SOURCES:
        if name.startswith("jax_attention"):
            top = [node for node in TREES[name].body if isinstance(node, (ast.Import, ast.ImportFrom))]
            found = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
            found |= {node.module for node in top if isinstance(node, ast.ImportFrom)}
            guilty += [(name, other) for other in found if other.split(".")[0] in optional]
    assert guilty == []


def test_only_nn_and_above_import_flax_at_the_top_of_a_file():
    below = [name for name in SOURCES if name.startswith("jax_attention") and floor(name) < floor("jax_attention.nn")]
    for name in below:
        top = [node for node in TREES[name].body if isinstance(node, (ast.Import, ast.ImportFrom))]
        found = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        found |= {node.module for node in top if isinstance(node, ast.ImportFrom)}
        assert {other.split(".")[0] for other in found} & {"flax", "optax", "jaxtyping", "torch"} == set(), name


# --- The README's tree -----------------------------------------------------------------------------------------------


def paths_in_tree(readme: str) -> list[str]:
    """Paths in the fenced block below the heading 'The tree': one file per line, or a folder with a trailing slash."""
    block = re.search(r"^#+ The tree\s*?$.*?^```\w*\n(.*?)^```", readme, re.M | re.S)
    assert block, "README.md has no fenced block below a heading 'The tree'"
    return [line.split()[0].rstrip("…") for line in block[1].splitlines() if line.strip()]


def tree_against_disk(tree: list[str], disk: set[str]) -> dict[str, list[str]]:
    folders = tuple(path for path in tree if path.endswith("/"))
    empty = [folder for folder in folders if not any(path.startswith(folder) for path in disk)]
    files = {path for path in tree if not path.endswith("/")}
    return {
        "listed twice": sorted({path for path in tree if tree.count(path) > 1}),
        "in the README, not on disk": sorted([*files - disk, *empty]),
        "on disk, not in the README": sorted(path for path in disk - files if not path.startswith(folders)),
    }


def test_the_tree_in_the_readme_is_the_disk():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    disk = {path for path in listed if path and (ROOT / path).exists()}
    found = tree_against_disk(paths_in_tree((ROOT / "README.md").read_text(encoding="utf-8")), disk)
    wrong = [f"{what}: {', '.join(paths)}" for what, paths in found.items() if paths]
    assert wrong == [], "\n".join(wrong)


def test_the_guard_of_the_tree_sees_what_is_wrong():
    readme = "# X\n\n## The tree\n\n```\na.py      one\na.py      two\ngone.py   x\ndocs/     all\n```\n"
    found = tree_against_disk(paths_in_tree(readme), {"a.py", "docs/b.md", "docs/c/d.md", "new.py"})
    assert list(found.values()) == [["a.py"], ["gone.py"], ["new.py"]]


# --- Cold import -----------------------------------------------------------------------------------------------------

COLD = """
import sys
BLOCKED = {"flax", "torch", "transformers", "matplotlib", "orbax", "optax", "tensorstore", "jaxtyping"}

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked by tests/test_house.py")

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


# --- Public names ----------------------------------------------------------------------------------------------------

PUBLIC = {
    "jax_attention": """Attended Blockwise Dropout Explanation FeatureState Partial attend attend_heads
        attend_heads_with_stats attend_step attend_with_stats attention_weights attention_weights_heads
        cache dot_product_attention explain
        flax_attention_fn masks merge_partials mods normalizers positions scores""",
    "jax_attention.scores": """CATALOGUE Additive Concat Cosine Dot Features General L2 Location PlainScore
        RandomFeatures ScaledDot Score additive as_score concat cosine dot features general l2 location random_features
        scaled_dot""",
    "jax_attention.mods": """CATALOGUE Alibi Bias Mod PlainMod Relative SoftCap Temperature alibi as_mod bias relative
        soft_cap temperature""",
    "jax_attention.masks": """CATALOGUE And BlockSparse Causal Chunked Dense Dilated Lengths Mask MaskAndMods Not Or
        PlainMask Prefix Segments SlidingWindow as_mask block_sparse causal chunked dense dilated from_flash_window
        from_huggingface from_huggingface_window from_jax_nn_window from_torch_mha from_torch_sdpa fully_masked_rows
        lengths prefix segments sliding_window""",
    "jax_attention.normalizers": """CATALOGUE Entmax15 Hard Linear Normalizer PlainNormalizer Proportional Relu Sigmoid
        Softmax Sparsemax Uniform as_normalizer entmax15 hard linear proportional relu sigmoid softmax
        sparsemax uniform""",
    "jax_attention.positions": """CATALOGUE Rotary Scaling alibi_slopes dynamic_scaling learned linear_scaling
        llama3_scaling rotary sinusoidal t5_buckets yarn_scaling""",
    "jax_attention.nn": """Additive Attn Concat FeedForward General Learned Linear Location MultiHeadAttention
        SelfAttention""",
    "jax_attention.models": """Capture Captured LMCache LMConfig LMOutput PRESETS Pure TransformerLM config_from_json
        config_to_json create from_dict gemma2 gpt2 llama pure scanned tiny to_dict unrolled""",
    "jax_attention.data": """Baselines Batch Bytes Characters Corpus Document HeldOut Ngram Packed Source
        StreamDecoder Subwords Tokenizer Tokens Windows held_out load_tokenizer ngram_baselines open_corpus
        open_tokens prepare read_documents split_documents standard_library_corpus tokenize write_tokens""",
    "jax_attention.training": """Checkpoints Fitted LoopConfig Losses Meter MetricsFile OptimizerConfig
        Progress TensorBoard TrainState TrainingDiverged check_divides cross_entropy data_mesh evaluate_step
        fit init_state keep_freed_memory language_model_loss make_evaluate make_optimizer make_schedule
        make_train_step matmul_peak progress read_metrics refuse_nonfinite replicate split_rows train_flops""",
    "jax_attention.decoding": """Generated Piece Prompts Rule Sampler generate greedy min_p pad_prompts
        repetition_penalty sampler temperature top_k top_p""",
    "jax_attention.viz": "alignment_map entropy_map head_entropy head_grid heat_map html_page rollout save",
}
CACHE = "append create filled next_positions"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_pinned(name):
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(PUBLIC[name].split())
    assert [public for public in module.__all__ if not hasattr(module, public)] == []


def own_functions(module):
    inside = inspect.getmembers(module, inspect.isfunction)
    return {name: f for name, f in inside if not name.startswith("_") and f.__module__ == module.__name__}


def test_public_functions_of_the_cache_are_pinned():
    assert sorted(own_functions(cache)) == CACHE.split()


def test_catalogues_hold_every_factory_of_their_folder():
    for package in (scores, mods, masks, normalizers):
        made = {f for name, f in vars(package).items() if name in package.__all__ and inspect.isfunction(f)}
        others = {f for f in made if f.__name__.startswith(("as_", "from_"))} | {masks.fully_masked_rows}
        assert set(package.CATALOGUE) == made - others, package.__name__


# --- Docstrings ------------------------------------------------------------------------------------------------------


DOCUMENTED_CLASSES = {
    *nn.__all__,
    "Capture",
    "LMConfig",
    "TransformerLM",
    "Baselines",
    "Batch",
    "Bytes",
    "Characters",
    "Corpus",
    "Document",
    "HeldOut",
    "Ngram",
    "Packed",
    "StreamDecoder",
    "Subwords",
    "Tokenizer",
    "Tokens",
    "Windows",
    "Checkpoints",
    "LoopConfig",
    "Meter",
    "MetricsFile",
    "OptimizerConfig",
    "TensorBoard",
    "TrainState",
}
"""Classes that users make; those that calls only return say in one line what they hold."""


def documented() -> dict[str, object]:
    found = {f"cache.{name}": f for name, f in own_functions(cache).items()} | {"Dropout": jax_attention.Dropout}
    for package in (jax_attention, scores, mods, masks, normalizers, positions):
        short = package.__name__.removeprefix("jax_attention").lstrip(".") or "jax_attention"
        functions = {name: getattr(package, name) for name in package.__all__}
        functions |= {f.__name__: f for f in getattr(package, "CATALOGUE", ())}
        found |= {f"{short}.{name}": f for name, f in functions.items() if inspect.isfunction(f)}
    for package in (nn, models, data, training, decoding, viz):
        short = package.__name__.removeprefix("jax_attention.")
        public = {name: getattr(package, name) for name in package.__all__}
        documented_here = {name: x for name, x in public.items() if inspect.isfunction(x) or name in DOCUMENTED_CLASSES}
        found |= {f"{short}.{name}": x for name, x in documented_here.items()}
    return found


DOCUMENTED = documented()


def section(doc: str, title: str) -> str | None:
    """The lines below `title:`, or what stands on the same line (`Args: none.`)."""
    found = re.search(rf"^{title}:(.*(?:\n(?:[ ]{{4}}.*)?)*)", doc, re.M)
    return found and found[1].strip("\n")


def parameters(x: object) -> list[str]:
    if hasattr(x, "_fields"):
        return list(x._fields)
    return [name for name in inspect.signature(x.__init__ if isinstance(x, type) else x).parameters if name != "self"]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring_is_complete(name):
    subject = DOCUMENTED[name]
    doc = inspect.cleandoc(subject.__doc__ or "")
    before = doc.split("\nArgs:")[0]
    assert re.match(r"\S.*\.$|\S.*:$", doc.split("\n\n")[0].replace("\n", " ")), "a first line that is a sentence"
    assert re.search(r"^    \S", before, re.M), "an indented equation above Args"
    missing = [title for title in ("Args", "Returns", "Raises", "Example", "Reference") if not section(doc, title)]
    assert missing == []
    assert ">>> " in section(doc, "Example")
    args, names = section(doc, "Args"), parameters(subject)
    unnamed = [p for p in names if not re.search(rf"^    (?:\w+, )*\*{{0,2}}{p}(?:, \w+)*:", args, re.M)]
    assert unnamed == [], "parameters without a line in Args"
    assert names or args.strip().startswith("none"), "a function without parameters says 'Args: none'"
    listed = re.findall(r"^    (\w+):", args, re.M)
    assert [entry for entry in listed if entry not in names] == [], "Args names what is not a parameter"


DOCTESTED = [module_name(path) for path in LIBRARY if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", DOCTESTED)
def test_examples_run(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


# --- What is not there -----------------------------------------------------------------------------------------------

FORBIDDEN = {
    "a private module of jax": r"jax\._src",
    "a large negative constant": r"-\s*\d+(?:\.\d*)?e\+?\d{1,}\b|-\s*\d{5,}|finfo\([^)]*\)\s*\.\s*min|nan_to_num",
    "a print": r"(?<![\w.])(?<!>>> )(?<!\.\.\.     )print\(",
    "a bare except": r"except\s*:",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_library_is_free_of(what):
    pattern = re.compile(FORBIDDEN[what])
    lines = [(path.name, line) for path in LIBRARY for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) > 3000
    assert [(name, line) for name, line in lines if pattern.search(line)] == []


def test_forbidden_patterns_find_what_they_forbid():
    guilty = [
        "from jax._src import core",
        "x = -1e9",
        "jnp.finfo(dtype).min",
        "    print(x)",
        "except:",
        "y = -10000.0",
    ]
    found = [[what for what, pattern in FORBIDDEN.items() if re.search(pattern, line)] for line in guilty]
    kinds = list(FORBIDDEN)
    assert found == [[kinds[0]], [kinds[1]], [kinds[1]], [kinds[2]], [kinds[3]], [kinds[1]]]


def test_no_file_is_long():
    assert {path.name: n for path in LIBRARY if (n := len(path.read_text(encoding="utf-8").splitlines())) > 350} == {}


def test_package_is_typed_and_versioned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (ROOT / "jax_attention" / "py.typed").exists()
    assert project["version"] == jax_attention.__version__
