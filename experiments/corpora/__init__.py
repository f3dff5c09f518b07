"""Corpora made from a seed: aligned English and Chinese sentences, passages with questions, reports with summaries."""

from experiments.corpora.grammar import Grammar
from experiments.corpora.passages import Passage, passages
from experiments.corpora.reports import Report, reports

__all__ = ["Grammar", "Passage", "Report", "passages", "reports"]
