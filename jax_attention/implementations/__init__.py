"""Implementations: ways to evaluate the one sentence. None imports another; `dispatch` chooses."""
