"""What happens inside a Transformer between a sentence and its next character?

Question: which shape has every stage, does order reach the output, why are inputs added to outputs, does nothing come
          from the future, and does a small trained model continue sensibly?
Command:  python -m experiments.inside_a_transformer
Time:     91 seconds of CPU time.
Result:   [6] -> [6, 768] -> [1, 768] -> [1, 50000]; swapped words move the last row under every scheme but none; in 32
          layers the gradient falls to 8e-9 with neither residual nor norm, and not with the norm alone; derivatives in
          later inputs are exactly 0; trained, 29 of 29 new sentences end rightly, 0 to 4 where nobody looks back.

    config.py       all sizes
    stages.py       E1, E3, E6: tokens, heads, the full pass of a random model
    order.py        E2: position schemes
    depth.py        E4: gradient norms by depth
    causality.py    E5: derivatives in earlier and later inputs
    weather.py      a small text of our own
    characters.py   E6: a model trained on it
    drawing.py      the figures
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.inside_a_transformer import causality, characters, depth, order, stages, weather
from experiments.inside_a_transformer.config import SMALL, Config

__all__ = ["SMALL", "Config", "Results", "run"]


class Results(NamedTuple):
    """What every part found."""

    cuts: dict[str, stages.Cut]
    heads: list[stages.Stage]
    told: dict[str, order.Told]
    full: stages.Pass
    continued: dict[str, list[characters.Continued]]
    gradients: dict[str, np.ndarray]
    reach: causality.Reach


def run(config: Config | None = None, text: Path | None = None) -> Results:
    """Every part; `text` is what the small model is trained on, our own sentences if None."""
    config = Config() if config is None else config
    length = len(config.sentence)
    return Results(
        stages.cuts(config.full, config.sentence, weather.training_text()),
        stages.heads(config.full, length),
        order.run(config.full, length),
        stages.full_pass(config.full, config.sentence),
        characters.run(config.characters, config.sentence, text),
        depth.run(config.deep),
        causality.run(config.causal, length),
    )
