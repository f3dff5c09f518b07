"""From logits to a token: logit transforms in one fixed order, then the largest logit or a draw."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.short_repr import FactoryRepr
from jax_attention.core.struct import part_field, struct
from jax_attention.decoding.history import History
from jax_attention.decoding.logit_transforms import Greedy, LogitTransform, UserLogitTransform
from jax_attention.decoding.logit_transforms import greedy as greedy_transform

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray


@struct
class Sampler(FactoryRepr):
    """Logit transforms in their order, and a choice of the token; made by `sampler`."""

    transforms: tuple[LogitTransform, ...] = part_field(default=())

    @property
    def greedy(self) -> bool:
        """Whether the largest logit is taken; otherwise a token is drawn, which needs a rng."""
        return any(isinstance(transform, Greedy) for transform in self.transforms)

    @property
    def needs_seen(self) -> bool:
        """Whether a transform reads `history.seen`."""
        return any(transform.needs_seen for transform in self.transforms)

    def logits(self, logits: Float[Array, "*batch V"], history: History | None = None) -> Float[Array, "*batch V"]:
        """Apply all transforms, in float32."""
        logits = logits.astype(jnp.float32)
        for transform in self.transforms:
            logits = transform(logits, history)
        return logits

    def __call__(
        self,
        logits: Float[Array, "*batch V"],
        history: History | None = None,
        rng: PRNGKeyArray | None = None,
    ) -> Int[Array, "*batch"]:
        """Choose one token per row, int32; `rng` holds one key per row `[...]`, or is None for `greedy`.

        greedy:  token = argmax(logits');        otherwise:  token ~ softmax(logits')
        """
        logits = self.logits(logits, history)
        if self.greedy:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        keys = None if rng is None else jax.random.key_data(rng).shape[:-1]
        fail_unless(
            keys == logits.shape[:-1],
            f"rng: expected one random key for each row of logits, {logits.shape[:-1]}, got {keys}. Split yours: "
            f"jax.random.split(rng, {logits.shape[:-1]}).",
        )
        # `categorical` takes one key for a whole array; one vmap per batch dimension gives each row its key.
        draw = jax.random.categorical
        for _ in logits.shape[:-1]:
            draw = jax.vmap(draw)
        return draw(rng, logits).astype(jnp.int32)

    def __repr__(self) -> str:
        return f"sampler({', '.join(map(repr, self.transforms))})"


def sampler(*transforms: LogitTransform | Callable) -> Sampler:
    """Compose logit transforms into a way to choose the next token, in the order of Hugging Face's `generate`.

        repetition_penalty -> no_repeat_ngram_size -> min_new_tokens -> plain functions
          -> temperature -> top_k -> top_p -> min_p -> draw (or greedy)

    The order of the arguments does not matter, except among plain functions; print the sampler to see the order.
    For another order apply the transforms by hand: each is a function of logits.

    Args:
        *transforms: logit transforms such as `temperature(0.8)`, each kind at most once, and functions
            `f(logits, history) -> logits`, where `history` is a `History`: the tokens of the rows so far. Without any,
            tokens are drawn from the model's distribution as it is.

    Returns:
        A `Sampler`, for `generate(..., sampler=)`. A direct call `sampler(...)(logits, history, rng)` gives a token per
        row: `[..., V] -> [...]`.

    Raises:
        ValueError: if a transform occurs twice, or would be ignored because of `greedy()`.
        TypeError: if an argument is neither a logit transform nor a function, or a function is one for version 0.1.

    Example:
        >>> from jax_attention import decoding
        >>> decoding.sampler(decoding.top_p(0.9), decoding.temperature(0.7))
        sampler(temperature(temperature=0.7), top_p(0.9))

    Reference:
        Holtzman et al. (2020), "The curious case of neural text degeneration".
    """
    checked = [_as_transform(transform) for transform in transforms]
    kinds = [type(transform) for transform in checked if not isinstance(transform, UserLogitTransform)]
    for kind in kinds:
        fail_unless(
            kinds.count(kind) == 1,
            f"transforms: expected each logit transform at most once, got {[t for t in checked if type(t) is kind]}. "
            "Keep one of them.",
        )
    ignored = [transform for transform in checked if transform.sampling_only]
    fail_unless(
        Greedy not in kinds or not ignored,
        f"transforms: expected greedy() without transforms that it would ignore, got {ignored} as well. Leave them "
        "out, or leave greedy() out to draw tokens.",
    )
    return Sampler(tuple(sorted(checked, key=lambda transform: transform.order)))


def as_sampler(x: Any) -> Sampler:
    """Convert the argument `sampler` of `generate`: a `Sampler`, one transform, or None for `greedy()`."""
    if isinstance(x, Sampler):
        return x
    if isinstance(x, (tuple, list)):
        raise TypeError(
            f"sampler: expected one object, got {describe_array(x)}. Compose transforms by sampler(*transforms)."
        )
    return sampler(greedy_transform() if x is None else x)


def _as_transform(x: Any) -> LogitTransform:
    if isinstance(x, LogitTransform):
        _check_signature(x, type(x).__call__)
        return x
    name = getattr(x, "__name__", type(x).__name__)
    module = getattr(x, "__module__", None)
    fail_unless(
        not (callable(x) and str(module).startswith("jax_attention.decoding")),
        f"transforms: expected a logit transform, got the factory {name} itself. Call it: decoding.{name}(...).",
        TypeError,
    )
    fail_unless(
        callable(x) and getattr(x, "part", None) is None and not isinstance(x, type),
        "transforms: expected logit transforms such as decoding.temperature(0.8), or functions (logits, history) -> "
        f"logits, got {describe_array(x)}.",
        TypeError,
    )
    _check_signature(x, x)
    return UserLogitTransform(x)


def _check_signature(transform: Any, call: Callable) -> None:
    """Refuse a function of version 0.1, whose second argument was the array that is now `history.seen`."""
    try:
        names = inspect.signature(call).parameters
    except ValueError:  # a builtin without a signature
        return
    got = getattr(transform, "__name__", transform)
    fail_unless(
        "seen" not in names,
        f"transforms: expected a function (logits, history) -> logits, got {got} with an argument named seen. Rename "
        "it to history and read history.seen.",
        TypeError,
    )
