"""Settings of the training loop: its length, and how often it logs, evaluates and saves."""

from __future__ import annotations

import dataclasses
import math

from jax_attention.core.checks import check_int, fail_unless


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Length of the training, and the intervals of its actions; an interval of 0 means only at the end.

        batch of step n = source.batch(seed, n, batch_size),        n = 0, …, steps - 1

    Args:
        steps: the number of updates in total, those before a resumption included.
        batch_size: B, the number of rows of the global batch; a multiple of the number of devices.
        seed: the seed of the batches.
        log_every: updates between lines of metrics.
        evaluate_every: updates between evaluations.
        sample_every: updates between text samples.
        checkpoint_every: updates between checkpoints; there is one more when a signal stops the run. Make it a multiple
            of `evaluate_every`: only a checkpoint that was evaluated at the same step can be the best.
        stop_after: the number of updates in a row that are not finite before the run stops with an error.
        save_minutes: minutes after the last checkpoint when another one is saved, between two steps; 0 for none. Saving
            does not change the numbers of a run. Only for one process: several would decide differently.

    Returns:
        A frozen configuration.

    Raises:
        ValueError: if a number is too small.
        TypeError: if one is not an int.

    Example:
        >>> from jax_attention import training
        >>> training.LoopConfig(steps=100, batch_size=8).evaluate_every
        250
    """

    steps: int = 2000
    batch_size: int = 12
    seed: int = 0
    log_every: int = 10
    evaluate_every: int = 250
    sample_every: int = 0
    checkpoint_every: int = 250
    stop_after: int = 20
    save_minutes: float = 0.0

    def __post_init__(self) -> None:
        at_least_one = ("batch_size", "stop_after")
        for field in dataclasses.fields(self):
            least = 1 if field.name in at_least_one else 0
            if field.name != "save_minutes":
                check_int(field.name, getattr(self, field.name), least, "It is a setting of LoopConfig.")
        fail_unless(
            0 <= self.save_minutes < math.inf,
            f"save_minutes: expected minutes >= 0, got {self.save_minutes}. 0 saves by steps only.",
        )
