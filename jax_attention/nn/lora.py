"""Low-rank adapters: a small pytree next to the model is trained, and the model itself does not change."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.core.checks import check_instance, check_int, describe_array
from jax_attention.core.numerics import compute_dtype
from jax_attention.core.struct import data_field, struct
from jax_attention.core.text import list_names, quote
from jax_attention.core.tree_paths import arrays_by_path, replace_arrays

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray

Module = TypeVar("Module")
KERNEL = "kernel"
ATTENTION = r"(^|\.)projections(\.|$)"


@struct
class Adapters:
    """Two factors for each kernel, by the path of its layer: `kernel + scale * down @ up`; see `lora`.

    The path of a table (`embedding`) stands for the table itself. Files of PEFT may hold more: a magnitude for each
    column of an adapted kernel, by the path of its layer (DoRA), and arrays that replace those of the module, by their
    own paths.
    """

    down: dict[str, Float[Array, "*layers D r"]] = data_field()
    up: dict[str, Float[Array, "*layers r F"]] = data_field()
    scale: float = 1.0
    magnitude: dict[str, Float[Array, "*layers F"]] | None = data_field(default=None)
    replaced: dict[str, Float[Array, "..."]] | None = data_field(default=None)


def lora(
    module: Module,
    rank: int,
    rng: PRNGKeyArray | int,
    *,
    targets: str = ATTENTION,
    alpha: float | None = None,
) -> Adapters:
    """Fresh adapters for the linear layers of any module; they change no output until they are trained.

        W' = W + (alpha / r) A B,        A [D, r] uniform in +-1 / sqrt(D),        B [r, F] = 0

    Args:
        module: a model or a layer; stacked kernels `[L, D, F]` of a scanned model get stacked factors.
        rank: r.
        rng: a JAX random key or a seed.
        targets: a regular expression searched in the paths of linear layers, such as `blocks.rest.0.attention.out`; by
            default it finds the projections to queries, keys and values. "" finds every linear layer.
        alpha: strength of the adapters; r if None.

    Returns:
        `Adapters` in at least float32, a pytree to differentiate and to give to optax:
        `jax.grad(lambda a: loss(apply_adapters(model, a)))`.

    Raises:
        ValueError: if the path of no layer matches, or `rank` is smaller than 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax_attention import models, nn
        >>> model = models.create(models.tiny(vocab_size=11, width=16))
        >>> adapters = nn.lora(model, rank=2, rng=0)
        >>> tuned = nn.apply_adapters(model, adapters)
        >>> bool((tuned(jnp.arange(5)).logits == model(jnp.arange(5)).logits).all())
        True

    Reference:
        Hu et al. (2022), "LoRA: low-rank adaptation of large language models".
    """
    check_int("rank", rank, 1, "It is the inner size of the two factors.")
    check_instance("module", module, nnx.Module, "a module", "Give a model or a layer.")
    rng = (
        jax.random.key(rng) if isinstance(rng, int) else check_instance("rng", rng, jax.Array, "a random key or a seed")
    )
    pattern = _pattern(targets)
    kernels = {_layer_path(path): x for path, x in arrays_by_path(module).items() if path.split(".")[-1] == KERNEL}
    chosen = {name: x for name, x in kernels.items() if pattern.search(name)}
    if not chosen:
        raise ValueError(f"targets: expected a pattern that finds one of {', '.join(kernels)}, got {quote(targets)}.")
    down, up = {}, {}
    for number, (name, kernel) in enumerate(chosen.items()):
        *layers, size, width = kernel.shape
        bound = size**-0.5
        kernel_rng, dtype = jax.random.fold_in(rng, number), compute_dtype(kernel.dtype)
        down[name] = jax.random.uniform(kernel_rng, (*layers, size, rank), dtype, -bound, bound)
        up[name] = jnp.zeros((*layers, rank, width), dtype)
    return Adapters(down, up, 1.0 if alpha is None else alpha / rank)


def apply_adapters(module: Module, adapters: Adapters) -> Module:
    """The module with its adapters added to its kernels; differentiable in both.

        W' = W + scale * A B;        with magnitudes m:  W'_f = m_f (W + scale * A B)_f / |(W + scale * A B)_f|

    Args:
        module: the module that the adapters were made for, or one with the same kernels.
        adapters: from `lora` or `interop.load_adapters`.

    Returns:
        A module of the same type and cost, which can be called, generated with and saved like any other.

    Raises:
        ValueError: if the module has no such kernel, or a factor, a magnitude or a replaced array does not fit it.

    Example:
        >>> import jax
        >>> from flax import nnx
        >>> from jax_attention import nn
        >>> layer = nn.Linear(3, 5, rngs=nnx.Rngs(0))
        >>> adapters = nn.lora(layer, rank=1, rng=0, targets="")
        >>> nn.apply_adapters(layer, jax.tree.map(lambda x: x + 1, adapters)).kernel[...].shape
        (3, 5)

    Reference:
        Liu et al. (2024), "DoRA: weight-decomposed low-rank adaptation", eq. 5, for magnitudes.
    """
    check_instance("module", module, nnx.Module, "a module", "Give the module that the adapters were made for.")
    check_instance("adapters", adapters, Adapters, "nn.Adapters", "Make them by nn.lora or interop.load_adapters.")
    arrays, magnitudes = arrays_by_path(module), adapters.magnitude or {}
    for path, x in (adapters.replaced or {}).items():
        _check_replaced(arrays, path, x)
        arrays[path] = x.astype(arrays[path].dtype)
    if unknown := sorted(magnitudes.keys() - adapters.down.keys()):
        raise ValueError(f"adapters: expected magnitudes of adapted kernels, got some of {list_names(unknown)}.")
    for name, down in adapters.down.items():
        path, up = _kernel_path(arrays, name), adapters.up[name]
        kernel = arrays[path]
        if down.shape[:-1] != kernel.shape[:-1] or up.shape != (*down.shape[:-2], down.shape[-1], kernel.shape[-1]):
            raise ValueError(
                f"adapters: expected factors [..., D, r] and [..., r, F] of the kernel {tuple(kernel.shape)} at "
                f"{name!r}, got {tuple(down.shape)} and {tuple(up.shape)}. Make them for this module: "
                "nn.lora(module, ...)."
            )
        wide = compute_dtype(kernel.dtype)
        # Added in at least float32: a narrow sum would round small changes of the kernel away.
        delta = jnp.matmul(down, up, preferred_element_type=wide)
        adapted = kernel.astype(wide) + adapters.scale * delta
        if name in magnitudes:
            adapted = _set_magnitude(name, adapted, magnitudes[name])
        arrays[path] = adapted.astype(kernel.dtype)
    return replace_arrays(module, arrays, "adapters: expected those of this module")


def _set_magnitude(name: str, kernel: jax.Array, magnitude: jax.Array) -> jax.Array:
    """The kernel `[..., D, F]` with the length of each column set to `magnitude[..., F]`."""
    if magnitude.shape != (*kernel.shape[:-2], kernel.shape[-1]):
        raise ValueError(
            f"adapters: expected a magnitude for each column of the kernel {tuple(kernel.shape)} at {name!r}, got "
            f"{describe_array(magnitude)}."
        )
    # A constant in the backward pass, which section 4.3 of the paper and PEFT leave out to save memory.
    length = jnp.linalg.norm(jax.lax.stop_gradient(kernel), axis=-2, keepdims=True)
    # A column of zeros has no direction: it stays zero, where 0 / 0 would be NaN, also in the derivatives.
    return kernel * (magnitude[..., None, :].astype(kernel.dtype) / jnp.where(length > 0, length, 1))


def _check_replaced(arrays: dict, path: str, x: jax.Array) -> None:
    known = arrays.get(path)
    if known is None or known.shape != x.shape:
        raise ValueError(
            f"adapters: expected replaced arrays of this module, got {path!r}, {describe_array(x)}, where it has "
            f"{'none' if known is None else describe_array(known)}."
        )


def _pattern(targets: str) -> re.Pattern:
    check_instance("targets", targets, str, "a regular expression", "'' is every linear layer.")
    try:
        return re.compile(targets)
    except (re.error, RecursionError, OverflowError) as error:  # the last two: too deep, too many repetitions
        raise ValueError(f"targets: expected a regular expression, got {quote(targets)} ({error}).") from None


def _layer_path(path: str) -> str:
    """The path of the layer that holds a kernel; "" where that is the module itself."""
    return path.removesuffix(KERNEL).removesuffix(".")


def _kernel_path(arrays: dict, name: str) -> str:
    """The path of the kernel of a layer, or of a table; it must exist."""
    path = f"{name}.{KERNEL}".lstrip(".")
    if name in arrays and path not in arrays:
        return name
    if path not in arrays:
        raise ValueError(
            f"adapters: expected paths of kernels in this module, got {name!r}. Scanned and unrolled models have "
            "different ones; make adapters for the one that is trained."
        )
    return path
