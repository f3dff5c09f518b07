"""Print every stage, train, write results.json and the figures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from experiments import record
from experiments.inside_a_transformer import SMALL, Config, Results, run
from experiments.inside_a_transformer.drawing import draw
from experiments.inside_a_transformer.stages import Stage

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Walk one sentence through a Transformer.

    Args:
        config: the sentence and all sizes.
        text: a file to train the small model on, in place of our own sentences; it must have the sentence's characters.
        small: small sizes, in place of those of config.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    text: Path | None = None
    small: bool = False
    out: Path | None = None


def show(config: Config, found: Results) -> None:
    """Print all parts."""
    print("E1. Tokens, and their embedding")
    for name, cut in found.cuts.items():
        ids = " ".join(map(str, cut.ids))
        print(f"    {name:<11} {len(cut.ids):>2} of {cut.vocabulary:>4} -> {list(cut.embedded)}   {ids}")
    print("E2. Position schemes in one block: the last row's change when the first two words change places")
    for name, told in found.told.items():
        print(f"    {name:<11} {list(told.embedded)} -> {list(told.output)}   {told.moved:.1e}")
    print("E3. Multi-head self-attention")
    show_stages(found.heads)
    print("E4. Gradient norm of the first layer over that of the last")
    for name, norms in found.gradients.items():
        print(f"    {name:<18} {', '.join(f'{ratio:.2e}' for ratio in norms[:, 0] / norms[:, -1])}")
    print("E5. Norms of d output_t / d input_s")
    print(f"    causal mask: largest above the diagonal {found.reach.above}")
    print(f"    no mask: smallest of all {found.reach.unmasked.min():.2e}; memory: {found.reach.memory.min():.2e}")
    print("E6. The full pass of a random model")
    show_stages(found.full.stages)
    print("E6. Trained small models")
    for name, runs in found.continued.items():
        for made in runs:
            right = f", {made.right} of {made.asked} held-out sentences right" if made.asked else ""
            text = made.text.split("\n")[0]
            print(f"    {name}, seed {made.seed}: {config.sentence}|{text}   loss {made.validation_loss:.4f}{right}")


def show_stages(stages: list[Stage]) -> None:
    """One line for each stage."""
    for stage in stages:
        print(f"    {stage.name:<17} {list(stage.shape)!s:<13} {stage.says}".rstrip())


def numbers_of(found: Results) -> dict[str, Any]:
    """What results.json keeps."""
    return {
        "E1": {name: cut._asdict() for name, cut in found.cuts.items()},
        "E2": {name: told._asdict() for name, told in found.told.items()},
        "E3": [stage._asdict() for stage in found.heads],
        "E4": found.gradients,
        "E5": found.reach._asdict() | {"above_the_diagonal": found.reach.above},
        "E6": {
            "stages": [stage._asdict() for stage in found.full.stages],
            "next_id": found.full.next_id,
            "largest_logit": found.full.logits.max(),
            "trained": {name: [made._asdict() for made in runs] for name, runs in found.continued.items()},
        },
    }


def main(given: Options) -> None:
    """Run, print, write."""
    config = dataclasses.replace(SMALL, sentence=given.config.sentence) if given.small else given.config
    found = run(config, given.text)
    show(config, found)
    record.keep(given, HERE, config, config.characters.seeds, numbers_of(found), lambda: draw(config, found))


if __name__ == "__main__":
    main(tyro.cli(Options))
