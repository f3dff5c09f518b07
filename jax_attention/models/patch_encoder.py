"""An image encoder whose tokens are patches; its output can be the memory of a decoder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.core.checks import check_instance, check_int, describe_array, fail_unless
from jax_attention.core.explicit_axes import reshape_tail
from jax_attention.models.block import INITIAL_DEVIATION, drop, fold
from jax_attention.models.config import LMConfig, model_dtype
from jax_attention.models.transformer_stack import TransformerStack
from jax_attention.nn import Linear
from jax_attention.nn.short_repr import ShortRepr

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


class PatchEncoder(ShortRepr, nnx.Module):
    """A Transformer over the patches of images, which attend to each other as `config.mask` says.

        x_p = patch_p W + b + position_p,        y = stack(x),        [..., H, W, C] -> [..., P, D]

    A decoder with `memory_size` = D attends to its output by `decoder.project_memory(encoder(images))`.

    Args:
        config: config of the Transformer, usually with `mask=None`; with `position="learned"` each patch has a row of a
            table. Its fields about tokens and the head are ignored.
        image: height, width and channels of an image.
        patch: height and width of a patch, divisors of the image's.
        rngs: random keys, used here and not kept.

    Returns:
        A module: `encoder(images)` gives `[..., P, D]`, with patches row by row from the top left;
        `encoder.patches(images)` gives their pixels.

    Raises:
        ValueError: if patches do not fill the image, or the config adds positions along one axis; by the call, if the
            images have another shape.
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
        self.image, self.patch = _check_sizes("image", image, 3), _check_sizes("patch", patch, 2)
        fail_unless(
            all(size % patch_size == 0 for size, patch_size in zip(self.image, self.patch, strict=False)),
            f"patch: expected divisors of the image's height and width, {self.image[:2]}, got {self.patch}. Pad the "
            "images, or choose other patches.",
        )
        fail_unless(
            config.position not in ("sinusoidal", "sinusoidal_half"),
            f"position: expected 'learned', 'none' or one that belongs to the attention, got {config.position!r}: "
            "sines count along one axis, and patches have two. Use 'learned'.",
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
        # Named `body` in checkpoints of every version: do not rename.
        self.body, self.config = TransformerStack(config, rngs=rngs), config

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches from top to bottom and from left to right."""
        return self.image[0] // self.patch[0], self.image[1] // self.patch[1]

    @property
    def count(self) -> int:
        """The number of patches P."""
        return math.prod(self.grid)

    def __call__(
        self, images: Float[Array, "*batch H W C"], *, rng: PRNGKeyArray | None = None
    ) -> Float[Array, "*batch P D"]:
        """Vectors `[..., P, D]` of the patches after the last block."""
        x = self.embed(self.patches(images).astype(model_dtype(self.config)))
        if self.position is not None:
            x = x + self.position[...].astype(x.dtype).reshape((1,) * (x.ndim - 2) + x.shape[-2:])
        return self.body(drop(x, self.config.dropout, fold(rng, 0)), rng=fold(rng, 1))

    def patches(self, images: Float[Array, "*batch H W C"]) -> Float[Array, "*batch P N"]:
        """Pixels of each patch, row by row: `[..., P, patch height * patch width * C]`."""
        images = jnp.asarray(images)
        fail_unless(
            images.ndim >= 3 and images.shape[-3:] == self.image,
            f"images: expected [..., height, width, channels] = [..., {', '.join(map(str, self.image))}], got "
            f"{describe_array(images)}. A grey image has one channel: images[..., None].",
        )
        (rows, columns), (height, width), channels = self.grid, self.patch, self.image[2]
        grid = jnp.swapaxes(reshape_tail(images, -3, rows, height, columns, width, channels), -4, -3)
        return reshape_tail(grid, -5, self.count, height * width * channels)


def _check_sizes(name: str, sizes: object, count: int) -> tuple[int, ...]:
    fail_unless(
        isinstance(sizes, (tuple, list)) and len(sizes) == count,
        f"{name}: expected {count} sizes, got {sizes!r}.",
        TypeError,
    )
    return tuple(check_int(name, size, 1, "Sizes are static.") for size in sizes)
