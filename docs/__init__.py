"""Documentation: a page and a picture for every rule; `python -m docs.pictures` draws the pictures."""
