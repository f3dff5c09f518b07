"""Sizes of a trial: those that the arrays of a rule declare, and small ones where they declare none."""

from __future__ import annotations

import numpy as np

from jax_attention.core.struct import named_arrays
from jax_attention.testing.trial import Rule, Trial


def make_trial(
    rule: Rule,
    shapes: tuple[tuple[int, int], ...],
    heads: int | None,
    head_size: int | None,
    seed: int,
) -> Trial:
    """A trial in the sizes that the arrays of the rule declare, and in small ones where they declare none."""
    entries = [entry for name, part in rule.items() for entry in named_arrays(part, name)]
    sizes, batches = {}, []
    for entry in entries:
        shape = np.shape(entry.array)
        batches.append(shape[: len(shape) - len(entry.axes)])
        named = zip(entry.axes, shape[len(shape) - len(entry.axes) :], strict=True)
        sizes |= {axis: size for axis, size in named if size != 1 or axis not in ("T", "S")}
    try:
        batch = np.broadcast_shapes((1, 1), *batches)
    except ValueError:
        shown = ", ".join(f"{entry.name} {shape}" for entry, shape in zip(entries, batches, strict=True))
        raise ValueError(
            f"rule: expected arrays whose batch dimensions (batch, then heads) broadcast together, got {shown}. Give "
            "each one entry per head, [N], or per batch element, [B, 1]."
        ) from None
    heads = heads or (batch[-1] if batch[-1] > 1 else 4)
    query_size = head_size or sizes.get("Hq") or sizes.get("Hq+Hk", 6) // 2
    key_size = sizes.get("Hk") or (sizes["Hq+Hk"] - query_size if "Hq+Hk" in sizes else query_size)
    shapes = tuple(dict.fromkeys((sizes.get("T", T), sizes.get("S", S)) for T, S in shapes))
    return Trial(
        rule,
        *shapes[0],
        batch=tuple(size if size > 1 else 2 for size in batch[:-1]),
        heads=heads,
        key_heads=heads // 2 if heads % 2 == 0 else 1,
        query_size=query_size,
        key_size=key_size,
        shapes=shapes,
        seed=seed,
    )
