"""The config of a Transformer language model: sizes, layout and the attention rule in one frozen dataclass."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import masks
from jax_attention.core.short_repr import short_repr
from jax_attention.masks import Mask
from jax_attention.models.config_checks import (
    BiasPlace,
    Dtype,
    Norm,
    NormPlace,
    Position,
    Remat,
    check_config,
)
from jax_attention.mods import Mod
from jax_attention.nn.feed_forward import ACTIVATIONS
from jax_attention.normalizers import Normalizer
from jax_attention.positions import Rotary, rotary
from jax_attention.scores import Score

MAX_CHECKED_POSITIONS = 256
"""`sees_future` evaluates the masks on at most so many positions: a grid of the context would take seconds."""


@short_repr
@dataclass(frozen=True, kw_only=True, repr=False)
class LMConfig:
    """One Transformer over tokens, attention rule included: causal by default, an encoder with `mask=None`.

        x = embed(tokens) + position;    depth times:  x = x + attend(norm(x)),  x = x + feed_forward(norm(x))
        logits = norm(x) W_head

    With `memory_size`, each block also reads a memory between the two: `x = x + attend(norm(x), memory)`.
    Swapping the rule is one line: `dataclasses.replace(config, normalize=normalizers.entmax15())`.

    Args:
        vocab_size: V.
        context: length of the sequences that the model is trained on; the default capacity of a cache, and the length
            of a learned position table.
        width: D.
        depth: number of blocks.
        num_heads: N.
        kv_heads: K, a divisor of N; None is N.
        head_size: H; None is D / N.
        ff_size: F; None is 4 D, for gated activations 8 D / 3 rounded up to a multiple of 8.
        activation: "gelu" (exact), "gelu_tanh", "relu", "relu2", "silu", "swiglu", "geglu", "geglu_tanh".
        position: "learned", "sinusoidal" (added), "sinusoidal_half" (all sines first, as Marian), "rotary", "alibi",
            "t5" (one table for all layers; both directions where tokens see the future), "none".
        t5_buckets: number of relative positions that T5's table tells apart, where position is "t5".
        t5_max_distance: from this distance on all positions share T5's last bucket.
        rope: the rotary embedding, where position is "rotary".
        local_rope: the rotary embedding of layers with a window; None is `rope` (Gemma 3 has a smaller base there).
        norm: "layer" or "rms".
        norm_place: "pre", "post" (after the residual sum), "sandwich" (before and after, as Gemma 2),
            "after" (on the outputs of attention and feed-forward, as OLMo 2), "parallel" (attention and feed-forward
            both read the block's input, as GPT-NeoX).
        final_norm: whether there is a norm after the last block; None is True unless `norm_place` is "post".
        norm_epsilon: added to the variance.
        use_bias: biases in all linear layers and layer norms; or a tuple of the places that have them: "qkv", "out",
            "feed_forward", "norm".
        tied_head: the head is the transposed embedding.
        head_transform: a linear layer, the activation and a norm before the head (BERT).
        head_bias: the head has a bias, tied or not.
        logit_scale: factor of hidden states before the head (T5: 1 / sqrt(D)).
        qk_norm: RMS norm over each query and key head; "all_heads" over the features of all heads together (OLMo 2).
        scale_embedding: embeddings times sqrt(D) (Gemma). Without it, initial embeddings of size 0.02 are drowned out
            by "sinusoidal" positions, whose size is 0.7.
        embedding_norm: a norm over embedded tokens (BERT, BART).
        token_types: number of token types, whose table is added to the embeddings (BERT: 2); 0 is no table.
        memory_size: features of the memory for cross-attention in each block; None is no cross-attention. It uses the
            score, cap and normalizer of the rule, without positions, mask and mods.
        score_cap: soft cap on attention scores, after all mods.
        scale_by_layer: attention scores of layer l = 0, 1, … are divided by l + 1, before all mods (an option of
            GPT-2).
        logit_cap: soft cap on the logits.
        windows: window sizes (None: unlimited) repeated over the layers: `(512, None)` alternates. A window allows no
            later keys.
        sinks: one learned sink for each head (softmax only).
        dropout: rate on embeddings and on the outputs of attention and feed-forward.
        attention_dropout: rate on attention weights.
        score: the rule's score; None is `scaled_dot`. Score, mods and normalize may also be classes of modules, whose
            parameters each layer has of its own: `nn.Additive`, or a subclass of `nn.PartModule`.
        mods: the rule's mods; position mods come first, the cap last.
        mask: the rule's mask; None lets every token see the future.
        normalize: the rule's normalizer; None is `softmax`.
        train_rule: floats inside score, mods and normalize are parameters of each layer instead of constants.
        scan: whether blocks are stacked and run by `lax.scan`, so that compile time does not grow with depth.
        remat: what the backward pass recomputes: "none", "dots" (all but products), "full" (all of each block).
        dtype: dtype to compute in. float16 has a narrow range and there is no loss scaling: train in bfloat16.
        param_dtype: dtype of the parameters.

    Returns:
        A config, hashable; equal configs make equal models.

    Raises:
        ValueError: if sizes do not fit or a name is unknown, naming the field.
        TypeError: if a part of the rule is of another kind, such as a mask in place of a mod.

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
    t5_buckets: int = 32
    t5_max_distance: int = 128
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
    qk_norm: bool | Literal["all_heads"] = False
    scale_embedding: bool = False
    embedding_norm: bool = False
    token_types: int = 0
    memory_size: int | None = None
    score_cap: float | None = None
    scale_by_layer: bool = False
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
            object.__setattr__(self, field.name, _to_python(getattr(self, field.name)))
        check_config(self)

    def replace(self, **changes: Any) -> LMConfig:
        """A config with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def resolved_head_size(self) -> int:
        """The head size H, by default D / N."""
        return self.width // self.num_heads if self.head_size is None else self.head_size

    @property
    def resolved_kv_heads(self) -> int:
        """The number of key heads K, by default N."""
        return self.num_heads if self.kv_heads is None else self.kv_heads

    @property
    def resolved_ff_size(self) -> int:
        """The feed-forward size F, by default 4 D, or 8 D / 3 rounded up to a multiple of 8 with a gated activation.

        Two thirds of the size give three matrices as many parameters as two (Shazeer, 2020).
        """
        if self.ff_size is not None:
            return self.ff_size
        return -(-8 * self.width // 24) * 8 if ACTIVATIONS[self.activation][1] else 4 * self.width

    def has_bias(self, place: BiasPlace) -> bool:
        """Whether linear layers or norms at this place have biases."""
        return self.use_bias if isinstance(self.use_bias, bool) else place in self.use_bias

    def sees_future(self, beyond: int = 0) -> bool:
        """Whether some token may attend to a later one at position `beyond` or above.

        With `beyond=0`: such a model sees the tokens that it is trained to predict. With the length of a prompt: it
        would attend to tokens that do not exist yet in generation.
        """
        return _sees_future(self, beyond)

    @property
    def has_final_norm(self) -> bool:
        """Whether there is a norm after the last block."""
        return self.norm_place != "post" if self.final_norm is None else self.final_norm

    def window(self, layer: int) -> int | None:
        """The window of a layer, from the pattern that repeats over the layers."""
        return self.windows[layer % len(self.windows)]


@functools.lru_cache(maxsize=64)
def _sees_future(config: LMConfig, beyond: int) -> bool:
    """Evaluate the masks of all layers on the first positions.

    Compile-time evaluation gives a Python bool also while a caller is traced.
    """
    with jax.ensure_compile_time_eval():
        positions = jnp.arange(min(max(config.context, beyond + 1), beyond + MAX_CHECKED_POSITIONS), dtype=jnp.int32)
        q_pos, k_pos = positions[:, None], positions[None, :]
        later = (k_pos > q_pos) & (k_pos >= beyond)
        for window in set(config.windows):
            allowed = jnp.ones((), bool)
            if config.mask is not None:
                allowed &= masks.as_mask(config.mask)(q_pos, k_pos)
            if window is not None:
                allowed &= masks.sliding_window(window)(q_pos, k_pos)
            if bool(jnp.any(allowed & later)):
                return True
    return False


def _to_python(x: Any) -> Any:
    """NumPy numbers as Python numbers, which JSON can write."""
    if isinstance(x, tuple):
        return tuple(_to_python(item) for item in x)
    return x.item() if isinstance(x, np.generic) else x


def model_dtype(config: LMConfig) -> jnp.dtype:
    """The dtype of activations."""
    return jnp.dtype(config.dtype)
