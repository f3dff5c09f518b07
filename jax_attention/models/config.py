"""What a Transformer language model is, as one frozen value: sizes, layout, and the attention rule."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import masks, mods, normalizers, scores
from jax_attention.ground.checks import check_int, check_part, fail_unless
from jax_attention.masks import Mask
from jax_attention.mods import Mod
from jax_attention.nn.feed_forward import ACTIVATIONS
from jax_attention.normalizers import Normalizer, Softmax
from jax_attention.positions import Rotary, rotary
from jax_attention.scores import Score

Position = Literal["learned", "sinusoidal", "rotary", "alibi", "t5", "none"]
Norm = Literal["layer", "rms"]
NormPlace = Literal["pre", "post", "sandwich", "after", "parallel"]
BiasPlace = Literal["qkv", "out", "feed_forward", "norm"]
Remat = Literal["none", "dots", "full"]
Dtype = Literal["float32", "bfloat16", "float16", "float64"]
T5_BUCKETS = 32
LOOKED_AT = 256


@dataclass(frozen=True, kw_only=True)
class LMConfig:
    """A decoder-only Transformer, attention rule included.

        x = embed(tokens) + position;    depth times:  x = x + attend(norm(x)),  x = x + feed_forward(norm(x))
        logits = norm(x) W_head

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
        position: "learned", "sinusoidal" (added), "rotary", "alibi", "t5" (one table for all layers), "none".
        rope: the rotary embedding, where position is "rotary".
        local_rope: that of layers with a window; None is `rope` (Gemma 3 turns them faster).
        norm: "layer" or "rms".
        norm_place: "pre", "post" (after the residual sum, no final norm), "sandwich" (before and after, as Gemma 2),
            "after" (only what is added, as OLMo 2), "parallel" (both halves read the block's input, as GPT-NeoX).
        norm_epsilon: added to the variance.
        use_bias: biases in linear layers and layer norms; or where: a tuple of "qkv", "out", "feed_forward", "norm".
        tied_head: the head is the transposed embedding.
        qk_norm: RMS norm over each query and key head; "joined" over all heads together (OLMo 2).
        scale_embedding: embeddings times sqrt(D) (Gemma).
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
    norm_epsilon: float = 1e-5
    use_bias: bool | tuple[BiasPlace, ...] = True
    tied_head: bool = True
    qk_norm: bool | Literal["joined"] = False
    scale_embedding: bool = False
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
        _check_sizes(self)
        _check_numbers(self)
        _check_names(self)
        _check_rule(self)

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


def _check_sizes(config: LMConfig) -> None:
    ropes = {"rope": config.rope} | ({} if config.local_rope is None else {"local_rope": config.local_rope})
    for name, rope in ropes.items():
        fail_unless(isinstance(rope, Rotary), f"{name}: expected positions.rotary(...), got {rope!r}.", TypeError)
    for name in ("vocab_size", "context", "width", "depth", "num_heads"):
        check_int(name, getattr(config, name), 1, "Sizes of a model are static.")
    for name in ("kv_heads", "head_size", "ff_size"):
        if getattr(config, name) is not None:
            check_int(name, getattr(config, name), 1, "None takes the default.")
    fail_unless(
        config.num_heads % config.resolved_kv_heads == 0,
        f"kv_heads: expected a divisor of num_heads = {config.num_heads}, got {config.kv_heads}.",
    )
    fail_unless(
        config.head_size is not None or config.width % config.num_heads == 0,
        f"num_heads: expected a divisor of width = {config.width}, got {config.num_heads}. Or give head_size.",
    )
    for name, rope in ropes.items():
        rotated = config.resolved_head_size if rope.size is None else rope.size
        fail_unless(
            config.position != "rotary" or rotated % 2 == 0,
            f"head_size: expected an even size for position='rotary', got {rotated}. Rotate fewer features: "
            f"{name}=positions.rotary(size=...).",
        )
    fail_unless(
        config.position != "sinusoidal" or config.width % 2 == 0,
        f"width: expected an even size for position='sinusoidal', got {config.width}.",
    )


def _check_numbers(config: LMConfig) -> None:
    rates, sizes = ("dropout", "attention_dropout"), ("norm_epsilon", "score_cap", "logit_cap")
    for name in (*rates, *sizes):
        x = getattr(config, name)
        if x is None and name.endswith("cap"):
            continue
        is_number = isinstance(x, (int, float)) and not isinstance(x, bool)
        fail_unless(is_number, f"{name}: expected a Python number, got {x!r}. It is static under jit.", TypeError)
        if name in rates:
            fail_unless(0 <= x < 1, f"{name}: expected 0 <= rate < 1, got {x}. 0 switches it off.")
        else:
            cure = "Leave it out to switch it off." if name.endswith("cap") else "The default is 1e-5."
            fail_unless(x > 0, f"{name}: expected a positive number, got {x}. {cure}")
    for name in ("use_bias", "tied_head", "qk_norm", "scale_embedding", "sinks", "train_rule", "scan"):
        x = getattr(config, name)
        if isinstance(x, tuple) and name == "use_bias":
            known = get_args(BiasPlace)
            wrong = [place for place in x if place not in known]
            fail_unless(not wrong, f"use_bias: expected places among {', '.join(known)}, got {wrong}.")
        elif (name, x) != ("qk_norm", "joined"):
            also = {"use_bias": " or a tuple of places", "qk_norm": " or 'joined'"}.get(name, "")
            fail_unless(isinstance(x, bool), f"{name}: expected True or False{also}, got {x!r}.", TypeError)


def _check_names(config: LMConfig) -> None:
    choices = {
        "activation": tuple(ACTIVATIONS),
        "position": get_args(Position),
        "norm": get_args(Norm),
        "norm_place": get_args(NormPlace),
        "remat": get_args(Remat),
        "dtype": get_args(Dtype),
        "param_dtype": get_args(Dtype),
    }
    for name, known in choices.items():
        got = getattr(config, name)
        fail_unless(got in known, f"{name}: expected one of {', '.join(known)}, got {got!r}.")
    for name in ("dtype", "param_dtype"):
        fail_unless(
            getattr(config, name) != "float64" or jax.config.jax_enable_x64,
            f'{name}: expected x64 mode for float64. Call jax.config.update("jax_enable_x64", True) first.',
        )


def _check_rule(config: LMConfig) -> None:
    for name, known in (("score", scores), ("normalize", normalizers), ("mask", masks)):
        part = getattr(config, name)
        if part is not None:
            check_part(name, part, known.CATALOGUE, "Leave it out for the default.")
    fail_unless(
        isinstance(config.mods, tuple), f"mods: expected a tuple of mods, got {config.mods!r}. One is (m,).", TypeError
    )
    for mod in config.mods:
        check_part("mod", mod, mods.CATALOGUE, "mods is a tuple: mods=(mods.alibi(slopes),).")
    fail_unless(
        isinstance(config.windows, tuple) and len(config.windows) > 0,
        f"windows: expected a tuple of sizes or None, got {config.windows!r}. (None,) is full attention everywhere.",
        TypeError,
    )
    for window in config.windows:
        if window is not None:
            check_int("windows", window, 1, "A window counts the query itself.")
    plain = config.normalize is None or config.normalize == Softmax()
    fail_unless(
        plain or not config.sinks,
        f"sinks: expected the plain softmax beside it, got normalize={config.normalize!r}. Put sinks into the value: "
        "normalize=normalizers.softmax(sinks), train_rule=True.",
    )


def _plain(x: Any) -> Any:
    """NumPy numbers as Python's: they hash, and come back from JSON as they are."""
    if isinstance(x, tuple):
        return tuple(_plain(item) for item in x)
    return x.item() if isinstance(x, np.generic) else x


def model_dtype(config: LMConfig) -> jnp.dtype:
    """The dtype of activations."""
    return jnp.dtype(config.dtype)
