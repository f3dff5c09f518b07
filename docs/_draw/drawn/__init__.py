"""One drawing function per rule, in one module per part; `docs._draw.pictures` saves the figures."""

from docs._draw.drawn import masks, mods, normalizers, positions, scores

__all__ = ["masks", "mods", "normalizers", "positions", "scores"]
