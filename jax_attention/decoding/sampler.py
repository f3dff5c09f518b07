"""From logits to a token: rules in one fixed order, then the largest logit or a draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.parts import FactoryRepr
from jax_attention.core.struct import part_field, struct
from jax_attention.decoding.rules import Greedy, LogitTransform, UserLogitTransform
from jax_attention.decoding.rules import greedy as greedy_rule

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


@struct
class Sampler(FactoryRepr):
    """Rules in their order; made by `sampler`."""

    rules: tuple[LogitTransform, ...] = part_field(default=())

    @property
    def greedy(self) -> bool:
        """Whether the largest logit is taken; otherwise a token is drawn and a rng is needed."""
        return any(isinstance(rule, Greedy) for rule in self.rules)

    @property
    def needs_seen(self) -> bool:
        """Whether a rule looks at the tokens that stand in the row already."""
        return any(rule.needs_seen for rule in self.rules)

    def logits(
        self, logits: Float[Array, "*lead V"], seen: Bool[Array, "*lead V"] | None = None
    ) -> Float[Array, "*lead V"]:
        """float32 logits after all rules."""
        logits = logits.astype(jnp.float32)
        for rule in self.rules:
            logits = rule(logits, seen)
        return logits

    def __call__(
        self,
        logits: Float[Array, "*lead V"],
        seen: Bool[Array, "*lead V"] | None = None,
        rng: PRNGKeyArray | None = None,
    ) -> Int[Array, "*lead"]:
        """One token per row, int32; `rng` holds one key per row `[...]`, or is None for `greedy`."""
        logits = self.logits(logits, seen)
        if self.greedy:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        draw = jax.random.categorical
        for _ in logits.shape[:-1]:
            draw = jax.vmap(draw)
        return draw(rng, logits).astype(jnp.int32)

    def __repr__(self) -> str:
        return f"sampler({', '.join(map(repr, self.rules))})"


def sampler(*rules: LogitTransform | Callable) -> Sampler:
    """Compose rules into a way to choose the next token, in the order of Hugging Face's `generate`.

        repetition_penalty -> plain functions -> temperature -> top_k -> top_p -> min_p -> draw (or greedy)

    The order in which rules are given does not matter, except among plain functions; print the sampler to see it.
    For another order apply the rules by hand: each is a function of logits.

    Args:
        *rules: values such as `temperature(0.8)`, each kind at most once, and functions `f(logits, seen) -> logits`,
            where `seen` is bool `[..., V]`. None at all draws from the model's own distribution.

    Returns:
        A `Sampler`, for `generate(..., sampler=)`; by itself `sampler(...)(logits, seen, rng)` gives a token per row.

    Raises:
        ValueError: if a rule is given twice, or one that would be ignored stands beside `greedy()`.
        TypeError: if a rule is not a value or a function.

    Example:
        >>> from jax_attention import decoding
        >>> decoding.sampler(decoding.top_p(0.9), decoding.temperature(0.7))
        sampler(temperature(temperature=0.7), top_p(0.9))

    Reference:
        Holtzman et al. (2020), "The curious case of neural text degeneration".
    """
    found = [_as_rule(rule) for rule in rules]
    kinds = [type(rule) for rule in found if not isinstance(rule, UserLogitTransform)]
    for kind in kinds:
        fail_unless(
            kinds.count(kind) == 1,
            f"rules: expected each rule at most once, got {[r for r in found if type(r) is kind]}. Keep one of them.",
        )
    ignored = [rule for rule in found if rule.random]
    fail_unless(
        Greedy not in kinds or not ignored,
        f"rules: expected greedy() without rules that it would ignore, got {ignored} beside it. Leave them out, or "
        "leave greedy() out to draw tokens.",
    )
    return Sampler(tuple(sorted(found, key=lambda rule: rule.place)))


def as_sampler(x: Any) -> Sampler:
    """What `generate(sampler=)` takes: a `Sampler`, one rule, or None for `greedy()`."""
    if isinstance(x, Sampler):
        return x
    if isinstance(x, (tuple, list)):
        raise TypeError(f"sampler: expected a value, got {describe_array(x)}. Compose rules by sampler(*rules).")
    return sampler(greedy_rule() if x is None else x)


def _as_rule(x: Any) -> LogitTransform:
    if isinstance(x, LogitTransform):
        return x
    name = getattr(x, "__name__", type(x).__name__)
    module = getattr(x, "__module__", None)
    fail_unless(
        not (callable(x) and str(module).startswith("jax_attention.decoding")),
        f"rules: expected a value, got {name} itself. Call it: decoding.{name}(...).",
        TypeError,
    )
    fail_unless(
        callable(x) and getattr(x, "part", None) is None and not isinstance(x, type),
        f"rules: expected values such as decoding.temperature(0.8), or functions (logits, seen) -> logits, got "
        f"{describe_array(x)}.",
        TypeError,
    )
    return UserLogitTransform(x)
