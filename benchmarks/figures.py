"""Draw the figures of the README from `results/*.json`.

    python -m benchmarks.figures        a few seconds; writes docs/img/attention_time.png and attention_memory.png

attention_time.png shows time over length for heads of 64, attention_memory.png temporary memory over length.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from benchmarks.tables import PASSES, ROOT, SIZE, read
from docs._draw.drawing import COLOURS, GREY, label, panels

IMAGES = ROOT / "docs" / "img"
KINDS = {"causal": "causal", "window": "window of 256 keys"}
NAMES = {
    "jax_attention": "jax_attention",
    "jax.nn": "jax.nn",
    "tokamax": "tokamax, chunked",
    "torch": "torch SDPA",
    "flex": "FlexAttention",
}
LINE_STYLES = dict(zip(NAMES, zip((*COLOURS, GREY), "osD^v", strict=True), strict=True))
"""Colour and marker of each competitor."""


def draw_lines(axes: Axes, ys: Mapping[str, Mapping[int, float]], styles: Mapping[str, tuple[str, str]]) -> None:
    """Draw one line per name over lengths, on logarithmic axes; lengths are labelled in units of 1,024."""
    for name, points in ys.items():
        colour, marker = styles[name]
        width = 2.2 if name == "jax_attention" else 1.3
        axes.plot(list(points), list(points.values()), color=colour, marker=marker, ms=4, lw=width, label=name)
    lengths = sorted({x for points in ys.values() for x in points})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(lengths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1024:g}k" if x >= 1024 else f"{x:g}"))
    axes.grid(True, which="major", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)


def milliseconds(kind: str, pass_: str) -> dict[str, dict[int, float]]:
    """Milliseconds by competitor and length; cases that a competitor lacks are left out."""
    series: dict[str, dict[int, float]] = {}
    for case in read("attention")["cases"]:
        if case["kind"] == kind and case["H"] == SIZE:
            for name in NAMES:
                if (ms := case[pass_]["ms"].get(name)) is not None:
                    series.setdefault(name, {})[case["T"]] = ms
    return series


def time(*axes: Axes) -> None:
    """Draw time over length: causal above, window below; forward on the left, with backward on the right."""
    panels_shown = [(kind, pass_) for kind in KINDS for pass_ in PASSES]
    for panel, (kind, pass_) in zip(axes, panels_shown, strict=True):
        draw_lines(panel, milliseconds(kind, pass_), LINE_STYLES)
        label(panel, f"{KINDS[kind]}, {pass_}", "tokens T", "milliseconds")
        panel.yaxis.set_major_locator(LogLocator(10))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,g}"))
    for rows in (axes[0::2], axes[1::2]):  # the same scale above and below
        low, high = min(a.get_ylim()[0] for a in rows), max(a.get_ylim()[1] for a in rows)
        for panel in rows:
            panel.set_ylim(low, high)
    handles, names = axes[0].get_legend_handles_labels()
    axes[0].legend(handles, [NAMES[name] for name in names])


def memory(*axes: Axes) -> None:
    """Draw memory over length: this library on the left, jax.nn on the right, on one scale."""
    growth = read("memory")["growth"]
    styles = dict(zip(growth["jax_attention"], zip(COLOURS, "osD^", strict=True), strict=True))
    series = {
        competitor: {
            derivative: {int(T): mib for T, mib in entry["MiB"].items()} for derivative, entry in entries.items()
        }
        for competitor, entries in growth.items()
    }
    numbers = [mib for entries in series.values() for points in entries.values() for mib in points.values()]
    for panel, (competitor, entries) in zip(axes, series.items(), strict=True):
        draw_lines(panel, entries, styles)
        slopes = dict.fromkeys(f"{entry['slope']:.1f}" for entry in growth[competitor].values())
        label(panel, f"{competitor}, causal (slope {' to '.join(sorted(slopes))})", "tokens T", "temporary memory")
        panel.set_ylim(min(numbers) / 1.6, max(numbers) * 1.6)
        panel.yaxis.set_major_locator(FixedLocator([4**n for n in range(1, 9)]))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y / 1024:g} GiB" if y >= 1024 else f"{y:g} MiB"))
    handles, names = axes[0].get_legend_handles_labels()
    long_names = {"hvp": "Hessian product (hvp)", "jvp": "forward mode (jvp)"}
    axes[0].legend(handles[::-1], [long_names.get(name, name) for name in names[::-1]], loc="upper left")


def main(folder: Path = IMAGES) -> None:
    """Draw both figures."""
    panels(time, folder / "attention_time.png", rows=2)
    panels(memory, folder / "attention_memory.png", height=3.4)


if __name__ == "__main__":
    main()
