"""What a Transformer language model is, as one frozen value: sizes, layout, and the attention rule."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import masks
from jax_attention.masks import Mask
from jax_attention.models.choices import BiasPlace, Dtype, Norm, NormPlace, Position, Remat
from jax_attention.models.config_checks import check_config
from jax_attention.mods import Mod
from jax_attention.nn.feed_forward import ACTIVATIONS
from jax_attention.normalizers import Normalizer
from jax_attention.positions import Rotary, rotary
from jax_attention.scores import Score

T5_BUCKETS = 32
LOOKED_AT = 256


@dataclass(frozen=True, kw_only=True)
class LMConfig:
    """One Transformer over tokens, attention rule included: causal by default, an encoder with `mask=None`.

        x = embed(tokens) + position;    depth times:  x = x + attend(norm(x)),  x = x + feed_forward(norm(x))
        logits = norm(x) W_head

    With `memory_size`, each block also reads a memory between the two: `x = x + attend(norm(x), memory)`.
    Swapping the rule is one line: `dataclasses.replace(config, normalize=normalizers.entmax15())`.

    Args:
        vocab_size: V.
        context: tokens that the model is trained on; the default capacity of a cache, the length of a learned table.
        width: D.
        depth: number of blocks.
        num_heads: N.
        kv_heads: K, a divisor of N; None is N.
        head_size: H; None is D / N.
        ff_size: F; None is 4 D, for gated activations 8 D / 3 rounded up to a multiple of 8.
        activation: "gelu" (exact), "gelu_tanh", "relu", "relu2", "silu", "swiglu", "geglu", "geglu_tanh".
        position: "learned", "sinusoidal" (added), "sinusoidal_half" (all sines first, as Marian), "rotary", "alibi",
            "t5" (one table for all layers; both directions where tokens see the future), "none".
        rope: the rotary embedding, where position is "rotary".
        local_rope: that of layers with a window; None is `rope` (Gemma 3 turns them faster).
        norm: "layer" or "rms".
        norm_place: "pre", "post" (after the residual sum), "sandwich" (before and after, as Gemma 2),
            "after" (only what is added, as OLMo 2), "parallel" (both halves read the block's input, as GPT-NeoX).
        final_norm: a norm behind the last block; None is one unless `norm_place` is "post".
        norm_epsilon: added to the variance.
        use_bias: biases in linear layers and layer norms; or where: a tuple of "qkv", "out", "feed_forward", "norm".
        tied_head: the head is the transposed embedding.
        head_transform: before the head a linear layer, the activation and a norm (BERT).
        head_bias: the head has a bias, tied or not.
        logit_scale: what hidden states are multiplied by before the head (T5: 1 / sqrt(D)).
        qk_norm: RMS norm over each query and key head; "joined" over all heads together (OLMo 2).
        scale_embedding: embeddings times sqrt(D) (Gemma); beside "sinusoidal" positions, whose size is 0.7, they
            otherwise start too small to be heard.
        embedding_norm: a norm over embedded tokens (BERT, BART).
        token_types: number of token types, whose table is added to the embeddings (BERT: 2); 0 is no table.
        memory_size: features of the memory that cross-attention in each block reads; None is no cross-attention. It
            has the rule's score, cap and normalizer, without positions, mask and mods.
        score_cap: soft cap on attention scores, after all mods.
        logit_cap: soft cap on the logits.
        windows: window sizes (None: unlimited) repeated over the layers: `(512, None)` alternates. They look back only.
        sinks: one learned sink for each head (softmax only).
        dropout: on embeddings and on what each half of a block adds.
        attention_dropout: on attention weights.
        score: the rule's score; None is `scaled_dot`.
        mods: the rule's mods; position mods come first, the cap last.
        mask: the rule's mask; None lets every token see the future.
        normalize: the rule's normalizer; None is `softmax`.
        train_rule: floats inside score, mods and normalize are parameters of each layer instead of constants.
        scan: blocks stacked and run by `lax.scan`: compile time does not grow with depth.
        remat: what backward recomputes: "none", "dots" (all but products), "full" (all of each block).
        dtype: to compute in. float16 has a narrow range and there is no loss scaling: train in bfloat16.
        param_dtype: of the parameters.

    Returns:
        A config; equal configs make equal models.

    Raises:
        ValueError: if sizes do not fit or a name is unknown, naming the field.
        TypeError: if a part of the rule is a value of another part.

    Example:
        >>> import dataclasses
        >>> from jax_attention import models, normalizers
        >>> config = models.LMConfig(vocab_size=65, context=64, width=128, depth=4, num_heads=4)
        >>> dataclasses.replace(config, normalize=normalizers.sparsemax()).normalize
        sparsemax()

    Reference:
        Radford et al. (2019), "Language models are unsupervised multitask learners".
    """

    vocab_size: int
    context: int = 256
    width: int = 128
    depth: int = 4
    num_heads: int = 4
    kv_heads: int | None = None
    head_size: int | None = None
    ff_size: int | None = None
    activation: str = "gelu"
    position: Position = "learned"
    rope: Rotary = dataclasses.field(default_factory=rotary)
    local_rope: Rotary | None = None
    norm: Norm = "layer"
    norm_place: NormPlace = "pre"
    final_norm: bool | None = None
    norm_epsilon: float = 1e-5
    use_bias: bool | tuple[BiasPlace, ...] = True
    tied_head: bool = True
    head_transform: bool = False
    head_bias: bool = False
    logit_scale: float = 1.0
    qk_norm: bool | Literal["joined"] = False
    scale_embedding: bool = False
    embedding_norm: bool = False
    token_types: int = 0
    memory_size: int | None = None
    score_cap: float | None = None
    logit_cap: float | None = None
    windows: tuple[int | None, ...] = (None,)
    sinks: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    score: Score | Any = None
    mods: tuple[Mod | Any, ...] = ()
    mask: Mask | Any = dataclasses.field(default_factory=masks.causal)
    normalize: Normalizer | Any = None
    train_rule: bool = False
    scan: bool = False
    remat: Remat = "none"
    dtype: Dtype = "float32"
    param_dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        check_config(self)

    def replace(self, **changes: Any) -> LMConfig:
        """The same with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def resolved_head_size(self) -> int:
        """H, by default D / N."""
        return self.width // self.num_heads if self.head_size is None else self.head_size

    @property
    def resolved_kv_heads(self) -> int:
        """K, by default N."""
        return self.num_heads if self.kv_heads is None else self.kv_heads

    @property
    def resolved_ff_size(self) -> int:
        """F, by default 4 D, or 8 D / 3 rounded up to a multiple of 8 where the activation is gated."""
        if self.ff_size is not None:
            return self.ff_size
        return -(-8 * self.width // 24) * 8 if ACTIVATIONS[self.activation][1] else 4 * self.width

    def has_bias(self, place: BiasPlace) -> bool:
        """Whether the linear layers, or norms, at this place have biases."""
        return self.use_bias if isinstance(self.use_bias, bool) else place in self.use_bias

    def sees_future(self, beyond: int = 0) -> bool:
        """Whether some token may attend to a later one that stands at position `beyond` or behind it.

        With 0 such a model can read what it is asked for in training; with the length of a prompt it would look at
        tokens that are not there yet in generation.
        """
        return _sees_future(self, beyond)

    @property
    def has_final_norm(self) -> bool:
        """Whether a norm stands behind the last block."""
        return self.norm_place != "post" if self.final_norm is None else self.final_norm

    def window(self, layer: int) -> int | None:
        """The window of a layer: the pattern repeats."""
        return self.windows[layer % len(self.windows)]


@functools.lru_cache(maxsize=64)
def _sees_future(config: LMConfig, beyond: int) -> bool:
    """Looks at the masks of all layers over the first positions; on known numbers, also while something is traced."""
    with jax.ensure_compile_time_eval():
        places = jnp.arange(min(max(config.context, beyond + 1), beyond + LOOKED_AT), dtype=jnp.int32)
        later = (places[None, :] > places[:, None]) & (places[None, :] >= beyond)
        for window in set(config.windows):
            allowed = jnp.ones((), bool)
            if config.mask is not None:
                allowed &= masks.as_mask(config.mask)(places[:, None], places[None, :])
            if window is not None:
                allowed &= masks.sliding_window(window)(places[:, None], places[None, :])
            if bool(jnp.any(allowed & later)):
                return True
    return False


def _plain(x: Any) -> Any:
    """NumPy numbers as Python's: they hash, and come back from JSON as they are."""
    if isinstance(x, tuple):
        return tuple(_plain(item) for item in x)
    return x.item() if isinstance(x, np.generic) else x


def model_dtype(config: LMConfig) -> jnp.dtype:
    """The dtype of activations."""
    return jnp.dtype(config.dtype)
