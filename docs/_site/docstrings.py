"""Extension of griffe, which reads the docstrings for the API reference."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension


class Docstrings(Extension):
    """Read the section `Example:` of a docstring as `Examples:`, in which griffe recognises sessions with `>>>`."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Rename the section in the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
