"""Command of the experiment: print every stage, train, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import command
from experiments.inside_a_transformer.config import SMALL, Config
from experiments.inside_a_transformer.drawing import draw
from experiments.inside_a_transformer.experiment import Results, run
from experiments.inside_a_transformer.stages import Stage

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Follow one sentence through a Transformer.

    Args:
        config: the sentence and all sizes.
        text: a file to train the small model on, instead of the sentences of `weather`; it must contain the characters
            of the sentence.
        small: small sizes, where config is not changed.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    text: Path | None = None
    small: bool = False
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Run, print, write."""
    config = command.chosen_config(options, SMALL)
    results = run(config, options.text)
    print_report(config, results)
    numbers = result_numbers(results)
    return command.save(options, HERE, config, config.characters.seeds, results, numbers, lambda: draw(config, results))


def result_numbers(results: Results) -> dict[str, Any]:
    """Numbers of all parts, by the rows E1 to E6 of the list of systems."""
    norms = results.jacobian_norms
    return {
        "E1": {name: tokenization._asdict() for name, tokenization in results.tokenizations.items()},
        "E2": {name: scheme._asdict() for name, scheme in results.schemes.items()},
        "E3": [stage._asdict() for stage in results.heads],
        "E4": results.gradients,
        "E5": norms._asdict() | {"above_the_diagonal": norms.above_the_diagonal},
        "E6": {
            "stages": [stage._asdict() for stage in results.full.stages],
            "next_id": results.full.next_id,
            "largest_logit": results.full.logits.max(),
            "trained": {name: [trained._asdict() for trained in runs] for name, runs in results.trained.items()},
        },
    }


def print_report(config: Config, results: Results) -> None:
    """Print all parts."""
    print("E1. Tokens, and their embedding")
    for name, tokens in results.tokenizations.items():
        ids = " ".join(map(str, tokens.ids))
        print(f"    {name:<11} {len(tokens.ids):>2} of {tokens.vocabulary:>4} -> {list(tokens.embedded)}   {ids}")
    print("E2. Position schemes in one block: change of the last row when the first two words are swapped")
    for name, scheme in results.schemes.items():
        print(f"    {name:<11} {list(scheme.embedded)} -> {list(scheme.output)}   {scheme.moved:.1e}")
    print("E3. Multi-head self-attention")
    _print_stages(results.heads)
    print("E4. Gradient norm of the first layer over that of the last")
    for name, norms in results.gradients.items():
        print(f"    {name:<18} {', '.join(f'{ratio:.2e}' for ratio in norms[:, 0] / norms[:, -1])}")
    print("E5. Norms of d output_t / d input_s")
    norms = results.jacobian_norms
    print(f"    causal mask: largest above the diagonal {norms.above_the_diagonal}")
    print(f"    no mask: smallest of all {norms.unmasked.min():.2e}; memory: {norms.memory.min():.2e}")
    print("E6. The full pass of a random model")
    _print_stages(results.full.stages)
    print("E6. Trained small models")
    for name, runs in results.trained.items():
        for trained in runs:
            right = f", {trained.right} of {trained.held_out} held-out sentences right" if trained.held_out else ""
            text = trained.text.split("\n")[0]
            print(
                f"    {name}, seed {trained.seed}: {config.sentence}|{text}   loss {trained.validation_loss:.4f}{right}"
            )


def _print_stages(stages: list[Stage]) -> None:
    """Print one line for each stage."""
    for stage in stages:
        print(f"    {stage.name:<17} {list(stage.shape)!s:<13} {stage.remark}".rstrip())
