"""Images as a memory: an encoder whose tokens are patches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.core.checks import check_instance, check_int, describe_array, fail_unless
from jax_attention.models.block import INITIAL_DEVIATION, drop, fold
from jax_attention.models.config import LMConfig, model_dtype
from jax_attention.models.transformer_stack import TransformerStack
from jax_attention.nn import Linear

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray

ADDED = ("sinusoidal", "sinusoidal_half")


class PatchEncoder(nnx.Module):
    """A Transformer over the patches of images, which see each other as `config.mask` says.

        x_p = patch_p W + b + position_p,        y = body(x),        [..., H, W, C] -> [..., P, D]

    What a decoder with `memory_size` = D attends to: `decoder.project_memory(encoder(images))`.

    Args:
        config: of the Transformer, usually with `mask=None`; with `position="learned"` each patch has a row of a table.
            What it says of tokens and the head is not looked at.
        image: height, width and channels of an image.
        patch: height and width of a patch, divisors of the image's.
        rngs: random keys, used here and not kept.

    Returns:
        A module: `encoder(images)` gives `[..., P, D]`, patches row by row from the top left; `encoder.patches(images)`
        their pixels.

    Raises:
        ValueError: if patches do not fill the image, or positions would be added that images do not have; by the call,
            if images have another shape.
        TypeError: if a size is no int.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import models
        >>> config = models.LMConfig(vocab_size=1, width=16, depth=1, num_heads=2, mask=None)
        >>> encoder = models.PatchEncoder(config, image=(8, 8, 1), patch=(2, 4), rngs=nnx.Rngs(0))
        >>> encoder(jnp.ones((3, 8, 8, 1))).shape
        (3, 8, 16)

    Reference:
        Dosovitskiy et al. (2021), "An image is worth 16x16 words".
    """

    def __init__(self, config: LMConfig, *, image: tuple[int, int, int], patch: tuple[int, int], rngs: nnx.Rngs):
        check_instance("config", config, LMConfig, "models.LMConfig(...)")
        self.image, self.patch = _sizes("image", image, 3), _sizes("patch", patch, 2)
        fail_unless(
            all(whole % part == 0 for whole, part in zip(self.image, self.patch, strict=False)),
            f"patch: expected divisors of the image's height and width, {self.image[:2]}, got {self.patch}. Pad the "
            "images, or choose other patches.",
        )
        fail_unless(
            config.position not in ADDED,
            f"position: expected 'learned', 'none' or one that belongs to the attention, got {config.position!r}: "
            "patches stand in two dimensions. Take 'learned'.",
        )
        fail_unless(
            config.memory_size is None,
            f"config: expected memory_size None, as the encoder reads nothing but images, got {config.memory_size}.",
        )
        param_dtype = jnp.dtype(config.param_dtype)
        options = {"dtype": model_dtype(config), "param_dtype": param_dtype, "rngs": rngs}
        self.embed = Linear(math.prod(self.patch) * self.image[2], config.width, **options)
        shape = (self.count, config.width)
        learned = config.position == "learned"
        table = INITIAL_DEVIATION * jax.random.normal(rngs.params(), shape, param_dtype) if learned else None
        self.position = None if table is None else nnx.Param(table)
        self.body, self.config = TransformerStack(config, rngs=rngs), config

    @property
    def grid(self) -> tuple[int, int]:
        """Patches from top to bottom and from left to right."""
        return self.image[0] // self.patch[0], self.image[1] // self.patch[1]

    @property
    def count(self) -> int:
        """P."""
        return math.prod(self.grid)

    def __call__(
        self, images: Float[Array, "*batch H W C"], *, rng: PRNGKeyArray | None = None
    ) -> Float[Array, "*batch P D"]:
        """What the patches are, each having seen the others."""
        x = self.embed(self.patches(images).astype(model_dtype(self.config)))
        if self.position is not None:
            x = x + self.position[...].astype(x.dtype)
        return self.body(drop(x, self.config.dropout, fold(rng, 0)), rng=fold(rng, 1)).hidden

    def patches(self, images: Float[Array, "*batch H W C"]) -> Float[Array, "*batch P N"]:
        """The pixels of each patch, row by row: `[..., P, patch height * patch width * C]`."""
        images = jnp.asarray(images)
        fail_unless(
            images.ndim >= 3 and images.shape[-3:] == self.image,
            f"images: expected [..., height, width, channels] = [..., {', '.join(map(str, self.image))}], got "
            f"{describe_array(images)}. A grey image has one channel: images[..., None].",
        )
        (rows, columns), (high, wide), channels = self.grid, self.patch, self.image[2]
        cut = images.reshape(*images.shape[:-3], rows, high, columns, wide, channels)
        return jnp.swapaxes(cut, -4, -3).reshape(*images.shape[:-3], self.count, high * wide * channels)


def _sizes(name: str, sizes: object, count: int) -> tuple[int, ...]:
    fail_unless(
        isinstance(sizes, (tuple, list)) and len(sizes) == count,
        f"{name}: expected {count} sizes, got {sizes!r}.",
        TypeError,
    )
    return tuple(check_int(name, size, 1, "Sizes are static.") for size in sizes)
