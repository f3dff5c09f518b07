"""The model as a pair of pure functions over plain nested dicts, for those who do not want a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.ground.checks import describe_array
from jax_attention.models.config import LMConfig
from jax_attention.models.transformer import TransformerLM, create

if TYPE_CHECKING:
    from jaxtyping import PRNGKeyArray

Params = dict[str, Any]
SHOWN = 8


class Pure(NamedTuple):
    """`init(rng) -> params` and `apply(params, tokens, **options) -> LMOutput`."""

    init: Callable[[Any], Params]
    apply: Callable[..., Any]


def pure(config: LMConfig) -> Pure:
    """The model of a config as two functions.

        params = init(rng),        apply(params, tokens) = TransformerLM with those parameters, called

    Args:
        config: sizes, layout and the attention rule.

    Returns:
        `Pure(init, apply)`; both can be jitted, vmapped and differentiated. `apply` takes every keyword of the model.

    Raises:
        ValueError: by `apply`, as `from_dict`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax_attention import models
        >>> init, apply = models.pure(models.tiny(vocab_size=11, width=16))
        >>> ensemble = jax.vmap(init)(jax.random.split(jax.random.key(0), 3))
        >>> jax.vmap(lambda params: apply(params, jnp.arange(5)).logits)(ensemble).shape
        (3, 5, 11)

    Reference:
        Frostig, Johnson, Leary (2018), "Compiling machine learning programs via high-level tracing".
    """

    def init(rng: PRNGKeyArray | int) -> Params:
        return to_dict(create(config, rng))

    def apply(params: Params, *args: Any, **options: Any) -> Any:
        return from_dict(config, params)(*args, **options)

    return Pure(init, apply)


def to_dict(model: TransformerLM) -> Params:
    """The parameters of a model as nested dicts of arrays.

        model.blocks.rest[0].attention.out.kernel  ->  {"blocks": {"rest": {"0": {"attention": {"out": {"kernel": …

    Args:
        model: a model, or any pytree of modules.

    Returns:
        Nested dicts with strings as keys, the layout of checkpoints.

    Raises:
        Nothing.

    Example:
        >>> from jax_attention import models
        >>> sorted(models.to_dict(models.create(models.tiny(vocab_size=11, width=16))))
        ['blocks', 'embedding', 'final_norm']

    Reference:
        https://flax.readthedocs.io/en/latest/guides/filters_guide.html: the state of a module.
    """
    nested: Params = {}
    for names, x in _named(model):
        inner = nested
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
        inner[names[-1]] = x
    return nested


def from_dict(config: LMConfig, params: Params) -> TransformerLM:
    """A model of the config with these parameters.

        to_dict(from_dict(config, params)) = params

    Args:
        config: what the parameters belong to.
        params: nested dicts as `to_dict` gives them, complete and without extra names.

    Returns:
        The model.

    Raises:
        ValueError: if a name is missing or unknown, or a shape differs; the message lists the first of each.

    Example:
        >>> from jax_attention import models
        >>> config = models.tiny(vocab_size=11, width=16)
        >>> model = models.from_dict(config, models.to_dict(models.create(config)))

    Reference:
        See `to_dict`.
    """
    abstract = jax.eval_shape(lambda: create(config))
    wanted = {".".join(names): x for names, x in _named(abstract)}
    given = {".".join(names): x for names, x in _flat(params)}
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    shapes = [
        f"{name}: expected {describe_array(x)}, got {describe_array(given[name])}"
        for name, x in wanted.items()
        if name in given and tuple(jnp.shape(given[name])) != x.shape
    ]
    problems = [
        f"{what}: {', '.join(names[:SHOWN])}{' …' if len(names) > SHOWN else ''}"
        for what, names in (("missing", missing), ("not of this model", unknown), ("wrong shape", shapes))
        if names
    ]
    if problems:
        raise ValueError("params: expected the parameters of this config, got " + "; ".join(problems) + ".")
    return jax.tree.unflatten(jax.tree.structure(abstract), [given[name] for name in wanted])


def _named(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
    """Leaves with their names; the `value` that every Flax variable adds is left out."""
    found = []
    for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
        names = [str(getattr(entry, "name", getattr(entry, "key", getattr(entry, "idx", entry)))) for entry in path]
        found.append((tuple(names[:-1] if names[-1] == "value" else names), x))
    return found


def _flat(nested: Params, prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for name, x in nested.items():
        found += _flat(x, (*prefix, str(name))) if isinstance(x, dict) else [((*prefix, str(name)), x)]
    return found
