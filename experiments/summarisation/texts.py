"""Reports and summaries as rows of words, summaries that need no model, and which parts of a summary are right."""

from __future__ import annotations

import re

import numpy as np

from experiments import corpora
from experiments.corpora.passage_words import CITIES
from experiments.corpora.report_words import AGENTS, DAYS, NUMBERS, SUBJECTS
from jax_attention import data

START, STOP = 0, 1
MAX_WORDS = 26
"""Limit of generated words; no summary is longer."""
PARTS = {
    "who": frozenset(agent.split(" ")[-1] for agent in AGENTS),
    "where": frozenset(CITIES),
    "when": frozenset(DAYS),
    "how many": frozenset(NUMBERS),
    "of what": frozenset(deed.objects for subject in SUBJECTS for deed in subject.deeds),
}
"""Words that express each part of a summary."""


def word_tokenizers(reports: list[corpora.Report]) -> tuple[data.Words, data.Words]:
    """Tokenizer of the documents, and tokenizer of the summaries, whose first words are `START` and `STOP`."""
    documents = data.Words.train(report.document for report in reports)
    summaries = data.Words.train(report.summary for report in reports)
    return documents, data.Words(("<s>", "</s>", *summaries.vocabulary))


def lead_summaries(reports: list[corpora.Report]) -> dict[str, list[str]]:
    """Summaries that need no model: the first sentence, the first three, and the whole document."""
    sentences = [re.findall(r"[^.]*\.", report.document) for report in reports]
    return {
        "the first sentence": [of_report[0].strip() for of_report in sentences],
        "the first three": ["".join(of_report[:3]).strip() for of_report in sentences],
        "all": [report.document for report in reports],
    }


def share_right_by_part(texts: list[str], targets: list[str]) -> dict[str, float]:
    """For each part, the share of summaries with exactly the target's words of that part, in the target's order."""
    return {
        part: float(
            np.mean(
                [_select(text, words) == _select(target, words) for text, target in zip(texts, targets, strict=True)]
            )
        )
        for part, words in PARTS.items()
    }


def _select(text: str, words: frozenset[str]) -> list[str]:
    return [word for word in text.split(" ") if word in words]
