"""Train all models, print quality by length and what is looked at, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from experiments import record
from experiments.translation import SMALL, Config, Measured, run
from experiments.translation.drawing import best_layer, draw
from experiments.translation.sentences import Corpus, of_file, of_grammar

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Translate by recurrent models, without and with attention, and by a Transformer.

    Args:
        config: sentences, models, training.
        pairs: a file of pairs, its columns parted by tabs: what to read, what to write. None takes the grammar.
        small: three small models and short sentences, in place of config.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    pairs: Path | None = None
    small: bool = False
    out: Path | None = None


def corpus_of(config: Config, path: Path | None) -> Corpus:
    """Of the grammar, or of the file."""
    if path is None:
        return of_grammar(config.sentences, config.words, config.lengths, config.each)
    return of_file(path, config.words, max(config.lengths), config.each, config.vocabulary)


def numbers_of(corpus: Corpus, found: dict[str, Measured]) -> dict[str, Any]:
    """Cost, and quality by length and seed; of sentences of the grammar also what the first shown one became."""
    numbers: dict[str, Any] = {
        "training_pairs": len(corpus.training),
        "test_sentences": {n: len(pairs) for n, pairs in corpus.tests.items()},
    }
    for name, one in found.items():
        numbers[name] = {
            "parameters": one.parameters,
            "last_loss": one.losses[:, -20:].mean(axis=1),
            "cost": one.cost._asdict(),
            "bleu": one.bleu,
            "exact": one.exact,
        }
        if corpus.generated:
            shown = {"watched": one.watched, "map": one.maps and one.maps[0], "agreement": one.agreements}
            numbers[name] |= {what: found for what, found in shown.items() if found is not None}
    return numbers


def show(corpus: Corpus, found: dict[str, Measured]) -> None:
    """One table, and what the first shown sentence became."""
    print("BLEU by words of the source, means over seeds")
    print(f"{'':20}{'parameters':>11}{'time':>6}{'MiB':>6}" + "".join(f"{n:>7}" for n in corpus.tests))
    for name, one in found.items():
        scores = "".join(f"{score:7.1f}" for score in one.bleu.mean(axis=0))
        print(f"{name:20}{one.parameters:>11,}{one.cost.time:6.2f}{one.cost.mib:6.0f}{scores}")
    print(f"\n{corpus.shown[0].source}")
    for name, one in found.items():
        print(f"{name:20}{' | '.join(one.watched)}")
    aligned = {name: one for name, one in found.items() if one.agreements is not None}
    if aligned:
        print("\nshare of target words whose largest weight is on the word that they translate")
    for name, one in aligned.items():
        shares = one.agreements[:, best_layer(one)].mean(axis=0)
        print(f"{name:20}{'':>23}" + "".join(f"{share:7.2f}" for share in shares))


def main(given: Options) -> None:
    """Train, print, write."""
    config = SMALL if given.small else given.config
    corpus = corpus_of(config, given.pairs)
    found = run(config, corpus)
    show(corpus, found)
    record.keep(
        given, HERE, config, config.schooling.seeds, numbers_of(corpus, found), lambda: draw(config, corpus, found)
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
