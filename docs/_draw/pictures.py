"""Draw one picture per rule with the library itself: `python -m docs._draw.pictures` writes `docs/rules/img/*.svg`.

`docs._draw.drawn` has one function per rule. All pictures take about half a minute on one CPU core. The version of
matplotlib that drew the files is kept in `docs/rules/img/VERSION`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import matplotlib

from docs._draw import drawn
from docs._draw.drawing import panels, table
from jax_attention import masks, mods, normalizers, positions, scores

DOCS = Path(__file__).parents[1]
DRAWINGS = {
    rule.__name__: getattr(drawings, rule.__name__)
    for rules, drawings in (
        (scores, drawn.scores),
        (mods, drawn.mods),
        (masks, drawn.masks),
        (normalizers, drawn.normalizers),
        (positions, drawn.positions),
    )
    for rule in rules.CATALOGUE
}
THREE_PANELS = ("concat", "location", "bias")


def stages(*axes) -> None:
    """Draw one small example through the five stages of attention."""
    x = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [2.0, 1.0]])
    pos = jnp.arange(4)
    q_pos, k_pos = pos[:, None], pos[None]
    first = scores.scaled_dot()(x, x)
    second = mods.alibi(0.5)(first, q_pos, k_pos)
    where = masks.causal()(q_pos, k_pos)
    weights = normalizers.softmax()(second, where)
    arrays = (
        (first, "1 score\nscaled_dot()"),
        (second, "2 modify\nalibi(0.5)"),
        (jnp.where(where, second, jnp.nan), "3 mask\ncausal()"),
        (weights, "4 normalise\nsoftmax()"),
        (weights @ x, "5 combine\nweights @ value"),
    )
    for i, (panel, (array, title)) in enumerate(zip(axes, arrays, strict=True)):
        table(panel, array, title, "feature" if i == 4 else "key", "query", digits=1 + (i > 2))


def main(root: Path = DOCS, suffix: str = ".svg") -> None:
    """Draw all pictures into folders below `root`."""
    for name, draw in DRAWINGS.items():
        panels(draw, root / "rules" / "img" / f"{name}{suffix}", columns=3 if name in THREE_PANELS else 2)
    panels(stages, root / "img" / f"formula{suffix}", columns=5, height=3.0)
    (root / "rules" / "img" / "VERSION").write_text(f"matplotlib {matplotlib.__version__}\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]), *sys.argv[2:3])
