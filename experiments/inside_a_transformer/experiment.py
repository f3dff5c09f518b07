"""The run of all parts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.inside_a_transformer import causality, characters, depth, order, stages, weather
from experiments.inside_a_transformer.config import Config


class Results(NamedTuple):
    """Results of every part."""

    tokenizations: dict[str, stages.Tokenization]
    heads: list[stages.Stage]
    schemes: dict[str, order.SchemeResults]
    full: stages.FullPass
    trained: dict[str, list[characters.TrainedResults]]
    gradients: dict[str, np.ndarray]
    jacobian_norms: causality.JacobianNorms


def run(config: Config | None = None, text: Path | None = None) -> Results:
    """Run every part; the small model is trained on the file `text`, or on the sentences of `weather` if None."""
    config = Config() if config is None else config
    length = len(config.sentence)
    return Results(
        stages.tokenize_and_embed(config.full, config.sentence, weather.training_text()),
        stages.attention_stages(config.full, length),
        order.run(config.full, length),
        stages.full_pass(config.full, config.sentence),
        characters.run(config.characters, config.sentence, text),
        depth.run(config.deep),
        causality.run(config.causal, length),
    )
