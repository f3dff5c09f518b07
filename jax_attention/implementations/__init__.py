"""Implementations: ways to evaluate the formula. None imports another; `attention/evaluate.py` chooses."""
