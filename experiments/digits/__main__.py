"""Train, print how right the words are and where they look, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments import record, seeds
from experiments.digits import SMALL, Config, Results, run
from experiments.digits.descriptions import KINDS
from experiments.digits.drawing import draw
from experiments.digits.hiding import ORDERS, WAYS

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Describe handwritten digits in words, and look at what each word looks at.

    Args:
        config: sizes, training, hiding.
        small: a short training of one narrow model of each kind, in place of config.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def numbers_of(found: Results) -> dict[str, Any]:
    """Everything measured: one entry for each seed, and in the last axis for each kind of word."""
    numbers: dict[str, Any] = {"kinds": KINDS, "orders": ORDERS, "commonest": found.commonest, "blind": found.blind}
    for name, models in found.models.items():
        rows = {key: [getattr(model, key) for model in models] for key in ("right", "written", "elsewhere", "maps")}
        hidden = {key: [model.hidden[key] for model in models] for key in (*WAYS, "empty")}
        numbers[name] = rows | {"own_row": [own_row(model.maps) for model in models], "hidden": hidden}
    return numbers


def own_row(maps: np.ndarray) -> dict[str, np.ndarray]:
    """The share of the weight that lies in the upper and in the lower row of patches, `[kinds]`; even would be 0.25."""
    rows = maps.reshape(len(KINDS), 4, 4).sum(-1)
    return {"top": rows[:, 0], "bottom": rows[:, -1]}


def show(config: Config, found: Results) -> None:
    """Print a table for each question."""
    print("share of right words on held-out images, mean and band over seeds")
    print(" " * 32, *(f"{kind:>18}" for kind in KINDS))
    print("commonest word".ljust(32), *(f"{share:18.3f}" for share in found.commonest))
    _bands("never sees an image", found.blind)
    for name, models in found.models.items():
        for key, says in (("right", ""), ("written", ", its own words"), ("elsewhere", ", another image")):
            _bands(f"{name}{says}", np.array([getattr(model, key) for model in models]))
    for name, models in found.models.items():
        for place in ("top", "bottom"):
            _bands(f"{name}, weight in {place} row", np.array([own_row(model.maps)[place] for model in models]))
    for name, models in found.models.items():
        for way in (*WAYS, "empty"):
            shares = np.mean([model.hidden[way] for model in models], 0)
            print(f"\n{name}, {way}; hidden patches: {config.counts}")
            for kind in ("digit", "top"):
                for order, row in zip(ORDERS, shares[:, :, KINDS.index(kind)], strict=True):
                    print(f"  {kind:6} {order:6}", *(f"{share:6.2f}" for share in row))


def _bands(name: str, values: np.ndarray) -> None:
    band = seeds.band(values)
    print(name.ljust(32), *(f" {m:.3f} ({a:.3f}-{b:.3f})" for m, a, b in zip(*band, strict=True)))


def main(given: Options) -> None:
    """Train, print, write."""
    config = SMALL if given.small else given.config
    found = run(config)
    show(config, found)
    record.keep(given, HERE, config, config.schooling.seeds, numbers_of(found), lambda: draw(config, found))


if __name__ == "__main__":
    main(tyro.cli(Options))
