"""Implementations: ways to evaluate the formula. None imports another; `attention/choose.py` chooses."""
