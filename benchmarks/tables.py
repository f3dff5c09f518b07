"""Write the tables of the README files from `results/*.json`; no figure in them is typed by hand.

    python -m benchmarks.tables           rewrites the text between `<!-- table: name -->` and `<!-- end -->`
    python -m benchmarks.tables means     prints one table

A test fails if a committed table differs from the committed JSON.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import suite_tables
from benchmarks.markdown import number, ratio, table

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "docs" / "blockwise.md",
    ROOT / "docs" / "interop.md",
)
PASSES = ("forward", "forward and backward")
PEERS = {"jax.nn": "jax.nn", "tokamax": "tokamax", "torch": "torch", "flex": "Flex"}
"""Headings of the peers, by their name in the JSON."""
SIZE = 64
"""Head size of the tables that show single cases."""
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)


def read(name: str) -> dict:
    """The contents of `results/name.json`, or {} if it was not measured yet."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def shape(case: dict) -> str:
    """A case as text, such as `causal, T = 128, H = 64`."""
    return f"{case['kind']}, T = {case['T']:,}, H = {case['H']}"


# --- attention ------------------------------------------------------------------------------------------------------


def columns() -> list[tuple[str, str]]:
    """Pass and peer of every column of ratios; FlexAttention has no backward pass on a CPU."""
    return [(label, peer) for label in PASSES for peer in PEERS if (label, peer) != (PASSES[1], "flex")]


def headings() -> list[str]:
    """Headings of the columns of ratios."""
    return [PEERS[peer] + ("" if label == PASSES[0] else ", both") for label, peer in columns()]


def mean(cases: list[dict], label: str, peer: str) -> float | None:
    """Geometric mean of the times of a peer over those of jax_attention, over the cases that the peer has."""
    ratios = [x for case in cases if (x := case[label]["ratio"].get(peer)) is not None]
    return statistics.geometric_mean(ratios) if ratios else None


def means() -> str:
    """Table of geometric means over all cases, and over those of one kind, length or head size."""
    cases = read("attention")["cases"]
    groups = {"all": cases}
    for name, key in (("{}", "kind"), ("T = {:,}", "T"), ("H = {}", "H")):
        for value in dict.fromkeys(case[key] for case in cases):
            groups[name.format(value)] = [case for case in cases if case[key] == value]
    rows = ([name, len(group), *(ratio(mean(group, *x)) for x in columns())] for name, group in groups.items())
    return table(["cases", "number", *headings()], rows)


def cases() -> str:
    """Table of all cases of one head size."""
    rows = []
    for case in read("attention")["cases"]:
        if case["H"] == SIZE:
            times = [number(case[label]["ms"]["jax_attention"]) for label in PASSES]
            ratios = [ratio(case[label]["ratio"].get(peer)) for label, peer in columns()]
            rows.append([case["kind"], f"{case['T']:,}", times[0], *ratios[:4], times[1], *ratios[4:]])
    names = headings()
    return table(["case", "T", "forward, ms", *names[:4], "both, ms", *names[4:]], rows)


def losses() -> str:
    """Table of the number of cases in which a peer is faster, and of its lowest ratio."""
    rows = []
    for label, peer in columns():
        pairs = [(x, case) for case in read("attention")["cases"] if (x := case[label]["ratio"].get(peer)) is not None]
        if pairs:
            worst, case = min(pairs, key=lambda pair: pair[0])
            slower = sum(x < 1 for x, _ in pairs)
            rows.append([PEERS[peer], label, len(pairs), slower, f"{ratio(worst)} ({shape(case)})"])
    return table(["peer", "pass", "cases", "of them slower than the peer", "lowest peer / jax_attention"], rows)


def headline() -> str:
    """Table of geometric means over all cases of each length."""
    cases = read("attention")["cases"]
    rows = []
    for length in sorted({case["T"] for case in cases}):
        group = [case for case in cases if case["T"] == length]
        rows.append([f"{length:,}", *(ratio(mean(group, *x)) for x in columns())])
    return table(["T", *headings()], rows)


# --- memory -----------------------------------------------------------------------------------------------------------


def memory() -> str:
    """Table of MiB by length, of jax_attention and jax.nn."""
    growth = read("memory")["growth"]
    series = {
        (competitor, derivative): entry
        for competitor, entries in growth.items()
        for derivative, entry in entries.items()
    }
    lengths = next(iter(series.values()))["MiB"]
    rows = [[f"{int(T):,}", *(number(entry["MiB"][T]) for entry in series.values())] for T in lengths]
    rows.append(["slope", *(f"{entry['slope']:.2f}" for entry in series.values())])
    return table(
        [
            "T",
            *(
                derivative if competitor == "jax_attention" else f"{competitor} {derivative}"
                for competitor, derivative in series
            ),
        ],
        rows,
    )


def memory_of_rules() -> str:
    """Table of MiB of gradients with rules that have arrays."""
    results = read("memory")["gradient with"]
    lengths = list(next(iter(results.values()))["jax_attention"])
    rows = [[rule, *(number(used[T]) for used in entry.values() for T in lengths)] for rule, entry in results.items()]
    one = [number(int(T) ** 2 * 4 / 2**20) for T in lengths]
    rows.append(["one `[T, S]` array of one head", *one, *one])
    return table(
        [
            "gradient with",
            *(f"{competitor}, T = {int(T):,}" for competitor in ("jax_attention", "jax.nn") for T in lengths),
        ],
        rows,
    )


# --- long and additive ------------------------------------------------------------------------------------------------


def finish() -> str:
    """Table of one long call."""
    x = read("long")["finish"]
    return table(["T", "heads", "seconds", "peak, GiB"], [[f"{x['T']:,}", x["heads"], x["seconds"], x["peak GiB"]]])


def window() -> str:
    """Table of a window at two lengths, and of a dense mask in PyTorch."""
    results = read("long")["window"]
    rows = []
    for label in PASSES:
        short, long, dense = map(number, results["ms"][label].values())
        longer, slower = (ratio(results[name][label]) for name in ("longer / shorter", "torch / jax_attention"))
        rows.append([label, short, long, longer, dense, slower])
    names = [f"T = {T:,}, ms" for T in results["T"]]
    return table(["pass", *names, "longer / shorter", f"torch, dense mask, {names[0]}", "torch / jax_attention"], rows)


def derivatives() -> str:
    """Table of the milliseconds of derivatives, and of ratios."""
    x = read("long")["derivatives"]
    header = [*(f"{label}, ms" for label in x["ms"]), "jvp / forward", "hvp / gradient"]
    return table(header, [[*map(number, x["ms"].values()), ratio(x["jvp / forward"]), ratio(x["hvp / gradient"])]])


def additive() -> str:
    """Table of milliseconds and MiB of additive attention, by length."""
    rows = []
    for case in read("additive")["cases"]:
        for label in ("forward", "gradient"):
            x = case[label]
            parts = [x["ms"], x["MiB"], x["XLA MiB"]]
            rows.append([f"{case['T']:,}", label, *(number(part.get(name)) for name in x["ms"] for part in parts)])
    names, units = ("blockwise", "dense", "Keras"), ("ms", "MiB", "by XLA")
    return table(["T = S", "pass", *(f"{name}, {unit}" for name in names for unit in units)], rows)


def rules() -> str:
    """Table of the cost of each rule."""
    ms = read("rules")["ms"]
    first = next(iter(ms.values()))
    rows = []
    for name, times in ms.items():
        rows.append(
            [name, *(x for label in times for x in (number(times[label]), f"{times[label] / first[label]:.2f}"))]
        )
    return table(["rule", "forward, ms", "over the first", "with gradients, ms", "over the first"], rows)


def crossover() -> str:
    """Table of the time of the blockwise implementation divided by that of the dense one."""
    cases = read("crossover")["cases"]
    kinds = list(dict.fromkeys(case["kind"] for case in cases))
    ratios = {
        (case["heads"], case["T"], case["kind"], label): f"{ms['tiles'] / ms['dense']:.2f}"
        for case in cases
        for label, ms in case["ms"].items()
    }
    shown = [(kind, label) for kind in kinds for label in ("forward", "both")]
    rows = []
    for heads, length in dict.fromkeys((case["heads"], case["T"]) for case in cases):
        rows.append([heads, f"{length:,}", f"{heads * length**2:,}", *(ratios[heads, length, *x] for x in shown)])
    return table(["heads", "T", "scores", *(", ".join(x) for x in shown)], rows)


def parity() -> str:
    """Table of the differences between every family and Hugging Face, with the versions."""
    results = read("parity")
    rows = [
        [
            name,
            x["family"],
            f"{x['forward']:.1e}",
            f"{x['gradient']:.1e}",
            f"{x['tokens'][0]} of {x['tokens'][1]}" if "tokens" in x else "",
            f"{x['half']['jax']:.1e}, {x['half']['hf']:.1e}",
        ]
        for name, x in results["models"].items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    heads = ["model", "family", "forward", "gradient", "equal tokens", "bfloat16: JAX, HF"]
    return table(heads, rows) + f"\n{versions}.\n"


def layer_parity() -> str:
    """Table of the differences between every layer and its counterpart in torch.nn."""
    dtypes = ("float32", "float64")
    rows = [
        [name, *(f"{number:.1e}" for dtype in dtypes for number in x[dtype])]
        for name, x in read("parity")["layers"].items()
    ]
    return table(["layer", *(f"{dtype}, {quantity}" for dtype in dtypes for quantity in ("forward", "gradient"))], rows)


def decode() -> str:
    """Table of generation, compared with Hugging Face."""
    results = read("decode")
    rows = [
        [x["model"], str(x["batch"])]
        + [
            text
            for figure, ratio in (("prompt and first token (ms)", "reading"), ("each further token (ms)", "writing"))
            for text in (
                *(f"{x[figure][competitor]:,.1f}" for competitor in ("jax_attention", "huggingface")),
                f"{x[f'ratio of {ratio}']}",
            )
        ]
        for x in results["against Hugging Face"]
    ]
    heads = ["model", "batch", "prompt (ms)", "HF prompt (ms)", "ratio", "further token (ms)", "HF token (ms)", "ratio"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return table(heads, rows) + f"\n{versions}; {results['threads']} threads.\n"


def decode_length() -> str:
    """Table of the cost of a token over the number of tokens before it."""
    results = read("decode")
    cached = results["cached against recomputed, batch 1"]
    rows = [
        [f"{x['prompt']:,}", f"{x['prompt and first token (ms)']:,.0f}", f"{x['each further token (ms)']:.1f}"]
        for x in results["time against length, batch 1"]
    ]
    heads = ["tokens before", "prompt and first new token (ms)", "each further token (ms)"]
    ms = cached["ms per token"]
    slow, fast = ms["recomputed"], ms["cached"]
    return table(heads, rows) + (
        f"\nWithout a cache a token takes {slow} ms, a full pass over 96 rows; with a cache {fast} ms, "
        f"{cached['ratio']} times as fast.\n"
    )


TABLES: dict[str, tuple[Callable[[], str], str, str]] = {
    "headline": (headline, "attention", "cases"),
    "means": (means, "attention", "cases"),
    "cases": (cases, "attention", "cases"),
    "losses": (losses, "attention", "cases"),
    "memory": (memory, "memory", "growth"),
    "memory-of-rules": (memory_of_rules, "memory", "gradient with"),
    "finish": (finish, "long", "finish"),
    "window": (window, "long", "window"),
    "derivatives": (derivatives, "long", "derivatives"),
    "parity": (parity, "parity", "models"),
    "layer-parity": (layer_parity, "parity", "layers"),
    "decode": (decode, "decode", "against Hugging Face"),
    "decode-length": (decode_length, "decode", "time against length, batch 1"),
    "additive": (additive, "additive", "cases"),
    "rules": (rules, "rules", "ms"),
    "crossover": (crossover, "crossover", "cases"),
    "suite": (lambda: suite_tables.tiers(read("suite")["pairs"]), "suite", "pairs"),
    "suite-files": (lambda: suite_tables.slowest_files(read("suite")["pairs"]), "suite", "pairs"),
}
"""For each table the function that renders it, its results file, and the part of the file that it needs."""


def render(name: str) -> str:
    """The text of a table, or of a line that says that it was not measured yet."""
    make, file, part = TABLES[name]
    return make() if part in read(file) else "Not measured yet.\n"


def rewrite(text: str) -> str:
    """The text of a page with all its tables rendered again."""
    return MARKED.sub(lambda match: f"{match[1]}\n{render(match[2])}\n{match[3]}", text)


def main(names: list[str]) -> None:
    """Print the named tables, or rewrite all pages."""
    for name in names:
        print(render(name))
    for page in () if names else PAGES:
        page.write_text(rewrite(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
