"""Command of the experiment: train all models, print quality and alignment, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import command
from experiments.translation.corpus import Corpus, file_corpus, grammar_corpus
from experiments.translation.drawing import best_layer, draw
from experiments.translation.experiment import SMALL, Config, ModelResults, run

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Translate by recurrent models, without and with attention, and by a Transformer.

    Args:
        config: sentences, models, training.
        pairs: a tab-separated file with a source and its translation in each line; None takes generated sentences.
        small: three small models and short sentences, where config is not changed.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    pairs: Path | None = None
    small: bool = False
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Train, print, write."""
    config = command.chosen_config(options, SMALL)
    corpus = make_corpus(config, options.pairs)
    results = run(config, corpus)
    print_report(corpus, results)
    numbers = result_numbers(corpus, results)
    draw_all = lambda: draw(config, corpus, results)  # noqa: E731
    return command.save(options, HERE, config, config.schooling.seeds, results, numbers, draw_all)


def make_corpus(config: Config, path: Path | None) -> Corpus:
    """Generated sentences, or those of the file."""
    if path is None:
        return grammar_corpus(config.sentences, config.words, config.lengths, config.each)
    return file_corpus(path, config.words, max(config.lengths), config.each, config.vocabulary)


def result_numbers(corpus: Corpus, results: dict[str, ModelResults]) -> dict[str, Any]:
    """Cost, and quality by length and seed; translations and maps only of generated sentences."""
    numbers: dict[str, Any] = {
        "training_pairs": len(corpus.training),
        "test_sentences": {n: len(pairs) for n, pairs in corpus.tests.items()},
    }
    for name, result in results.items():
        numbers[name] = {
            "parameters": result.parameters,
            "last_loss": result.losses[:, -20:].mean(axis=1),
            "cost": result.cost._asdict(),
            "bleu": result.bleu,
            "exact": result.exact,
        }
        if corpus.generated:
            shown = {
                "shown_translations": result.shown_translations,
                "map": result.maps and result.maps[0],
                "agreement": result.agreements,
            }
            numbers[name] |= {key: x for key, x in shown.items() if x is not None}
    return numbers


def print_report(corpus: Corpus, results: dict[str, ModelResults]) -> None:
    """Print a table of BLEU and cost, the translations of the first shown sentence, and the agreements."""
    print("BLEU by words of the source, means over seeds")
    print(f"{'':20}{'parameters':>11}{'time':>6}{'MiB':>6}" + "".join(f"{n:>7}" for n in corpus.tests))
    for name, result in results.items():
        scores = "".join(f"{score:7.1f}" for score in result.bleu.mean(axis=0))
        print(f"{name:20}{result.parameters:>11,}{result.cost.time:6.2f}{result.cost.mib:6.0f}{scores}")
    print(f"\n{corpus.shown[0].source}")
    for name, result in results.items():
        print(f"{name:20}{' | '.join(result.shown_translations)}")
    aligned = {name: result for name, result in results.items() if result.agreements is not None}
    if aligned:
        print("\nshare of target words whose largest weight is on the word that they translate")
    for name, result in aligned.items():
        shares = result.agreements[:, best_layer(result)].mean(axis=0)
        print(f"{name:20}{'':>23}" + "".join(f"{share:7.2f}" for share in shares))
