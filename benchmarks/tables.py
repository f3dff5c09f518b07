"""The tables of the README files, made from `results/*.json`: no figure in them is typed by hand.

    python -m benchmarks.tables           rewrites what stands between `<!-- table: name -->` and `<!-- end -->`
    python -m benchmarks.tables means     prints one table

A test fails where a committed table is not what the committed JSON says.
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
"""Name in the JSON -> heading."""
SIZE = 64
"""The head size of tables that show single cases."""
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)


def read(name: str) -> dict:
    """`results/name.json`, or nothing if it was not measured yet."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def shape(case: dict) -> str:
    """`causal, T = 128, H = 64`."""
    return f"{case['kind']}, T = {case['T']:,}, H = {case['H']}"


# --- attention ------------------------------------------------------------------------------------------------------


def columns() -> list[tuple[str, str]]:
    """Pass and peer of every column of ratios; FlexAttention has no backward pass on a CPU."""
    return [(label, peer) for label in PASSES for peer in PEERS if (label, peer) != (PASSES[1], "flex")]


def headings() -> list[str]:
    """Of these columns."""
    return [PEERS[peer] + ("" if label == PASSES[0] else ", both") for label, peer in columns()]


def mean(cases: list[dict], label: str, peer: str) -> float | None:
    """The geometric mean of peer over ours, over the cases that the peer has."""
    found = [x for case in cases if (x := case[label]["ratio"].get(peer)) is not None]
    return statistics.geometric_mean(found) if found else None


def means() -> str:
    """Geometric means over all cases, and over those of one kind, length or head size."""
    cases = read("attention")["cases"]
    groups = {"all": cases}
    for name, key in (("{}", "kind"), ("T = {:,}", "T"), ("H = {}", "H")):
        for value in dict.fromkeys(case[key] for case in cases):
            groups[name.format(value)] = [case for case in cases if case[key] == value]
    rows = ([name, len(group), *(ratio(mean(group, *x)) for x in columns())] for name, group in groups.items())
    return table(["cases", "number", *headings()], rows)


def cases() -> str:
    """Every case of one head size."""
    rows = []
    for case in read("attention")["cases"]:
        if case["H"] == SIZE:
            own = [number(case[label]["ms"]["jax_attention"]) for label in PASSES]
            ratios = [ratio(case[label]["ratio"].get(peer)) for label, peer in columns()]
            rows.append([case["kind"], f"{case['T']:,}", own[0], *ratios[:4], own[1], *ratios[4:]])
    names = headings()
    return table(["case", "T", "forward, ms", *names[:4], "both, ms", *names[4:]], rows)


def losses() -> str:
    """Where a peer is faster."""
    rows = []
    for label, peer in columns():
        found = [(x, case) for case in read("attention")["cases"] if (x := case[label]["ratio"].get(peer)) is not None]
        if found:
            worst, case = min(found, key=lambda pair: pair[0])
            slower = sum(x < 1 for x, _ in found)
            rows.append([PEERS[peer], label, len(found), slower, f"{ratio(worst)} ({shape(case)})"])
    return table(["peer", "pass", "cases", "of them slower than the peer", "lowest peer / ours"], rows)


def headline() -> str:
    """The longest length, one head size."""
    found = [case for case in read("attention")["cases"] if case["H"] == SIZE]
    longest = max(case["T"] for case in found)
    rows = []
    for case in found:
        if case["T"] == longest:
            own = [number(case[label]["ms"]["jax_attention"]) for label in PASSES]
            ratios = [ratio(case[label]["ratio"].get(peer)) for label, peer in columns()]
            rows.append([case["kind"], own[0], *ratios[:4], own[1], *ratios[4:]])
    names = headings()
    return table([f"T = {longest:,}", "forward, ms", *names[:4], "both, ms", *names[4:]], rows)


# --- memory -----------------------------------------------------------------------------------------------------------


def memory() -> str:
    """MiB by length, ours and jax.nn's."""
    growth = read("memory")["growth"]
    series = {(who, what): entry for who, entries in growth.items() for what, entry in entries.items()}
    lengths = next(iter(series.values()))["MiB"]
    rows = [[f"{int(T):,}", *(number(entry["MiB"][T]) for entry in series.values())] for T in lengths]
    rows.append(["slope", *(f"{entry['slope']:.2f}" for entry in series.values())])
    return table(["T", *(what if who == "jax_attention" else f"{who} {what}" for who, what in series)], rows)


def memory_of_rules() -> str:
    """MiB of gradients with rules that have arrays."""
    found = read("memory")["gradient with"]
    lengths = list(next(iter(found.values()))["jax_attention"])
    rows = [[rule, *(number(used[T]) for used in entry.values() for T in lengths)] for rule, entry in found.items()]
    one = [number(int(T) ** 2 * 4 / 2**20) for T in lengths]
    rows.append(["one `[T, S]` array of one head", *one, *one])
    return table(["gradient with", *(f"{who}, T = {int(T):,}" for who in ("ours", "jax.nn") for T in lengths)], rows)


# --- long and additive ------------------------------------------------------------------------------------------------


def finish() -> str:
    """One long call."""
    x = read("long")["finish"]
    return table(["T", "heads", "seconds", "peak, GiB"], [[f"{x['T']:,}", x["heads"], x["seconds"], x["peak GiB"]]])


def window() -> str:
    """A window at two lengths, beside a dense mask."""
    found = read("long")["window"]
    rows = []
    for label in PASSES:
        short, long, dense = map(number, found["ms"][label].values())
        longer, slower = (ratio(found[name][label]) for name in ("longer / shorter", "torch / ours"))
        rows.append([label, short, long, longer, dense, slower])
    names = [f"T = {T:,}, ms" for T in found["T"]]
    return table(["pass", *names, "longer / shorter", f"torch, dense mask, {names[0]}", "torch / ours"], rows)


def derivatives() -> str:
    """Milliseconds and ratios."""
    x = read("long")["derivatives"]
    header = [*(f"{label}, ms" for label in x["ms"]), "jvp / forward", "hvp / gradient"]
    return table(header, [[*map(number, x["ms"].values()), ratio(x["jvp / forward"]), ratio(x["hvp / gradient"])]])


def additive() -> str:
    """Milliseconds and MiB by length."""
    rows = []
    for case in read("additive")["cases"]:
        for label in ("forward", "gradient"):
            x = case[label]
            parts = [x["ms"], x["MiB"], x["XLA MiB"]]
            rows.append([f"{case['T']:,}", label, *(number(part.get(name)) for name in x["ms"] for part in parts)])
    names, units = ("blockwise", "dense", "Keras"), ("ms", "MiB", "by XLA")
    return table(["T = S", "pass", *(f"{name}, {unit}" for name in names for unit in units)], rows)


def rules() -> str:
    """What each rule costs."""
    ms = read("rules")["ms"]
    first = next(iter(ms.values()))
    rows = []
    for name, own in ms.items():
        rows.append([name, *(x for what in own for x in (number(own[what]), f"{own[what] / first[what]:.2f}"))])
    return table(["rule", "forward, ms", "over the first", "with gradients, ms", "over the first"], rows)


def crossover() -> str:
    """Tiles beside the dense form: the time of the former over that of the latter."""
    found = read("crossover")["cases"]
    kinds = list(dict.fromkeys(case["kind"] for case in found))
    ratios = {
        (case["heads"], case["T"], case["kind"], label): f"{ms['tiles'] / ms['dense']:.2f}"
        for case in found
        for label, ms in case["ms"].items()
    }
    shown = [(kind, label) for kind in kinds for label in ("forward", "both")]
    rows = []
    for heads, length in dict.fromkeys((case["heads"], case["T"]) for case in found):
        rows.append([heads, f"{length:,}", f"{heads * length**2:,}", *(ratios[heads, length, *x] for x in shown)])
    return table(["heads", "T", "scores", *(", ".join(x) for x in shown)], rows)


def parity() -> str:
    """Differences of every family from Hugging Face, and the versions."""
    found = read("parity")
    rows = [
        [
            name,
            x["family"],
            f"{x['forward']:.1e}",
            f"{x['gradient']:.1e}",
            f"{x['tokens'][0]} of {x['tokens'][1]}" if "tokens" in x else "",
            f"{x['bfloat16']['jax']:.1e}, {x['bfloat16']['hf']:.1e}",
        ]
        for name, x in found["models"].items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    heads = ["model", "family", "forward", "gradient", "equal tokens", "bfloat16: JAX, PyTorch"]
    return table(heads, rows) + f"\n{versions}.\n"


def layer_parity() -> str:
    """Differences of every converted layer from torch.nn."""
    dtypes = ("float32", "float64")
    rows = [
        [name, *(f"{number:.1e}" for dtype in dtypes for number in x[dtype])]
        for name, x in read("parity")["layers"].items()
    ]
    return table(["layer", *(f"{dtype}, {what}" for dtype in dtypes for what in ("forward", "gradient"))], rows)


def decode() -> str:
    """Reading and writing beside Hugging Face."""
    found = read("decode")
    rows = [
        [x["model"], str(x["batch"])]
        + [
            text
            for what, ratio in (("prompt and first token (ms)", "reading"), ("each further token (ms)", "writing"))
            for text in (
                *(f"{x[what][who]:,.1f}" for who in ("jax_attention", "huggingface")),
                f"{x[f'ratio of {ratio}']}",
            )
        ]
        for x in found["against Hugging Face"]
    ]
    heads = ["model", "batch", "prompt (ms)", "theirs", "ratio", "further token (ms)", "theirs", "ratio"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return table(heads, rows) + f"\n{versions}; {found['threads']} threads.\n"


def decode_length() -> str:
    """What a token costs when much stands before it."""
    found = read("decode")
    cached = found["cached against recomputed, batch 1"]
    rows = [
        [f"{x['prompt']:,}", f"{x['prompt and first token (ms)']:,.0f}", f"{x['each further token (ms)']:.1f}"]
        for x in found["time against length, batch 1"]
    ]
    heads = ["tokens before", "reading them, with the first new token (ms)", "each further token (ms)"]
    ms = cached["ms per token"]
    slow, fast = ms["recomputed"], ms["cached"]
    return table(heads, rows) + (
        f"\nWithout a cache, a full pass over 96 rows for every token: {slow} ms; with it {fast} ms, "
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
"""Name -> what makes it, the file and the part of it that it is made from."""


def made(name: str) -> str:
    """A table, or a line where its figures do not exist yet."""
    make, file, part = TABLES[name]
    return make() if part in read(file) else "Not measured yet.\n"


def rewritten(text: str) -> str:
    """A page with all its tables made anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{made(found[2])}\n{found[3]}", text)


def main(names: list[str]) -> None:
    """Print the named tables, or rewrite all pages."""
    for name in names:
        print(made(name))
    for page in () if names else PAGES:
        page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
