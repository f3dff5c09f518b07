"""One function per rule, by part; each draws on the axes it is given. `docs.pictures` saves what they draw."""

from docs.drawn import masks, mods, normalizers, positions, scores

__all__ = ["masks", "mods", "normalizers", "positions", "scores"]
