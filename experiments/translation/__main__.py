"""Train all models, print quality by length and what is looked at, write results.json and the figures."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from experiments import figures, record
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
        return of_grammar(config.pairs, config.words, config.lengths, config.each)
    return of_file(path, config.words, max(config.lengths), config.each, config.vocabulary)


def numbers_of(corpus: Corpus, found: dict[str, Measured]) -> dict[str, Any]:
    """Quality by length and seed, and the map of the first shown sentence."""
    numbers: dict[str, Any] = {
        "training_pairs": len(corpus.training),
        "test_sentences": {n: len(pairs) for n, pairs in corpus.tests.items()},
    }
    for name, one in found.items():
        numbers[name] = {
            "parameters": one.parameters,
            "last_loss": one.losses[:, -20:].mean(axis=1),
            "seconds_per_step": one.seconds,
            "bleu": one.bleu,
            "exact": one.exact,
            "watched": one.watched,
        }
        if one.maps is not None:
            numbers[name]["map"] = one.maps[0]
        if one.agreements is not None:
            numbers[name]["agreement"] = one.agreements
    return numbers


def show(corpus: Corpus, found: dict[str, Measured]) -> None:
    """One table, and what the first shown sentence became."""
    print("BLEU by words of the source, means over seeds")
    print(f"{'':14}{'parameters':>11}" + "".join(f"{n:>7}" for n in corpus.tests))
    for name, one in found.items():
        print(f"{name:14}{one.parameters:>11,}" + "".join(f"{score:7.1f}" for score in one.bleu.mean(axis=0)))
    print(f"\n{corpus.shown[0].source}")
    for name, one in found.items():
        print(f"{name:14}{' | '.join(one.watched)}")
    aligned = {name: one for name, one in found.items() if one.agreements is not None}
    if aligned:
        print("\nshare of target words whose largest weight is on the word that they translate")
    for name, one in aligned.items():
        shares = one.agreements[:, best_layer(one)].mean(axis=0)
        print(f"{name:14}{'':>11}" + "".join(f"{share:7.2f}" for share in shares))


def main(given: Options) -> None:
    """Train, print, write."""
    out = record.place(given, HERE)
    began = time.perf_counter()
    config = SMALL if given.small else given.config
    corpus = corpus_of(config, given.pairs)
    found = run(config, corpus)
    show(corpus, found)
    seconds = time.perf_counter() - began
    record.write(out, config, config.schooling.seeds, numbers_of(corpus, found), seconds)
    for name, figure in draw(config, corpus, found).items():
        figures.save(figure, out / f"{name}.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
