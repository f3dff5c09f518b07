"""Reports and summaries as rows of words; summaries that need no model; what of a summary is right."""

from __future__ import annotations

import re

import numpy as np

from experiments import corpora
from experiments.corpora.passage_words import CITIES
from experiments.corpora.report_words import AGENTS, DAYS, NUMBERS, SUBJECTS
from jax_attention import data

START, STOP = 0, 1
MOST = 26
"""So many words are written at most, more than any summary has."""
KINDS = {
    "who": frozenset(agent.split(" ")[-1] for agent in AGENTS),
    "where": frozenset(CITIES),
    "when": frozenset(DAYS),
    "how many": frozenset(NUMBERS),
    "of what": frozenset(deed.objects for subject in SUBJECTS for deed in subject.deeds),
}
"""The words that say one part of a summary."""


def words(reports: list[corpora.Report]) -> tuple[data.Words, data.Words]:
    """The words of the documents, and those of the summaries behind `START` and `STOP`."""
    documents = data.Words.train(report.document for report in reports)
    summaries = data.Words.train(report.summary for report in reports)
    return documents, data.Words(("<s>", "</s>", *summaries.vocabulary))


def leads(reports: list[corpora.Report]) -> dict[str, list[str]]:
    """Summaries that need no model: the first sentences, and all."""
    sentences = [re.findall(r"[^.]*\.", report.document) for report in reports]
    return {
        "the first sentence": [some[0].strip() for some in sentences],
        "the first three": ["".join(some[:3]).strip() for some in sentences],
        "all": [report.document for report in reports],
    }


def kept(texts: list[str], wanted: list[str]) -> dict[str, float]:
    """For each kind of word the share of summaries that have the right ones, in the right order, and no others."""
    return {
        name: float(np.mean([_only(one, kind) == _only(other, kind) for one, other in zip(texts, wanted, strict=True)]))
        for name, kind in KINDS.items()
    }


def _only(text: str, kind: frozenset[str]) -> list[str]:
    return [word for word in text.split(" ") if word in kind]
