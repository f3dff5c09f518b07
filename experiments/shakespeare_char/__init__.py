"""A small character model on Shakespeare: the setting whose result everybody knows."""
