"""The pages of the documentation; `docs._draw` draws their pictures."""
