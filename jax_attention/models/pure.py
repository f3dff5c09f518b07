"""The model as a pair of pure functions over plain nested dicts, for users who do not want a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from jax_attention.core.short_repr import short_repr
from jax_attention.core.tree_paths import arrays_by_path, flatten, nest, replace_arrays
from jax_attention.models.config import LMConfig
from jax_attention.models.create import create
from jax_attention.models.transformer import TransformerLM

if TYPE_CHECKING:
    from jaxtyping import PRNGKeyArray

Params = dict[str, Any]


@short_repr
class PureModel(NamedTuple):
    """`init(rng) -> params` and `apply(params, tokens, **options) -> LMOutput`."""

    init: Callable[[Any], Params]
    apply: Callable[..., Any]


def pure_model(config: LMConfig) -> PureModel:
    """The model of a config as two pure functions.

        params = init(rng),        apply(params, tokens) = from_dict(config, params)(tokens)

    Args:
        config: sizes, layout and the attention rule.

    Returns:
        `PureModel(init, apply)`; both can be jitted, vmapped and differentiated. `apply` takes every keyword of the
        model.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax_attention import models
        >>> init, apply = models.pure_model(models.tiny(vocab_size=11, width=16))
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

    return PureModel(init, apply)


def to_dict(model: TransformerLM) -> Params:
    """The parameters of a model as nested dicts of arrays.

        model.blocks.rest[0].attention.out.kernel  ->  {"blocks": {"rest": {"0": {"attention": {"out": {"kernel": …

    Args:
        model: a model, or any pytree of modules.

    Returns:
        Nested dicts with strings as keys, the layout of checkpoints.

    Example:
        >>> from jax_attention import models
        >>> sorted(models.to_dict(models.create(models.tiny(vocab_size=11, width=16))))
        ['blocks', 'embedding', 'final_norm']

    Reference:
        https://flax.readthedocs.io/en/latest/guides/filters_guide.html: the state of a module.
    """
    return nest(arrays_by_path(model), ".")


def from_dict(config: LMConfig, params: Params) -> TransformerLM:
    """A model of the config with these parameters.

        to_dict(from_dict(config, params)) = params

    Args:
        config: the config of the model that the parameters belong to.
        params: nested dicts as `to_dict` returns them, complete and without extra names.

    Returns:
        The model.

    Raises:
        ValueError: if a name is missing or unknown, or a shape differs; the message lists the first of each.

    Example:
        >>> from jax_attention import models
        >>> config = models.tiny(vocab_size=11, width=16)
        >>> model = models.from_dict(config, models.to_dict(models.create(config)))
    """
    abstract = jax.eval_shape(lambda: create(config))
    return replace_arrays(abstract, flatten(params, "."), "params: expected the parameters of this config")
