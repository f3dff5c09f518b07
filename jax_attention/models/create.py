"""Fresh models, and conversions of a model: blocks stacked for `lax.scan` or unrolled, a head tied or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import jax
from flax import nnx

from jax_attention.core.checks import check_instance, fail_unless
from jax_attention.core.tree_paths import arrays_by_path, replace_arrays
from jax_attention.models.config import LMConfig
from jax_attention.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from jax_attention.models.rnn_config import RNNConfig
from jax_attention.models.rnn_seq2seq import RNNSeq2Seq
from jax_attention.models.transformer import TransformerLM
from jax_attention.models.transformer_stack import TransformerStack

if TYPE_CHECKING:
    from jaxtyping import PRNGKeyArray


Model = TypeVar("Model", TransformerStack, TransformerLM, EncoderDecoder)
MODELS = {LMConfig: TransformerLM, EncoderDecoderConfig: EncoderDecoder, RNNConfig: RNNSeq2Seq}


def create(
    config: LMConfig | EncoderDecoderConfig | RNNConfig, rng: PRNGKeyArray | int = 0
) -> TransformerLM | EncoderDecoder | RNNSeq2Seq:
    """A fresh model, initialised in one compiled call.

        model = TransformerLM(config) with parameters drawn from rng: normal(0.02), residual outputs / sqrt(2 depth)

    Args:
        config: sizes, layout and the attention rule; an `EncoderDecoderConfig` makes an `EncoderDecoder`, an
            `RNNConfig` an `RNNSeq2Seq`.
        rng: a JAX random key or a seed.

    Returns:
        The model. Scanned and unrolled layouts of one config start with the same numbers.

    Raises:
        ValueError: as `LMConfig`.

    Example:
        >>> from jax_attention import models
        >>> models.create(models.tiny(vocab_size=11)).embedding[...].shape
        (11, 128)

    Reference:
        Radford et al. (2019), section 2.3.
    """
    check_instance("config", config, tuple(MODELS), "models.LMConfig(...), EncoderDecoderConfig(...) or RNNConfig(...)")
    rng = (
        jax.random.key(rng) if isinstance(rng, int) else check_instance("rng", rng, jax.Array, "a random key or a seed")
    )
    return _create(config, rng)


@jax.jit(static_argnums=0)
def _create(
    config: LMConfig | EncoderDecoderConfig | RNNConfig, rng: jax.Array
) -> TransformerLM | EncoderDecoder | RNNSeq2Seq:
    return MODELS[type(config)](config, rngs=nnx.Rngs(rng))


def scan_layers(model: Model) -> Model:
    """The same model with its blocks stacked for `lax.scan`.

        layers [block_0, …, block_L]  ->  one block with arrays [L, ...] for each place in the window pattern

    Args:
        model: a `TransformerLM`, `TransformerStack` or `EncoderDecoder`, in either layout.

    Returns:
        A model with `config.scan = True`; its numbers are the same to rounding.

    Example:
        >>> from jax_attention import models
        >>> model = models.scan_layers(models.create(models.tiny(vocab_size=11)))
        >>> model.config.scan, model.blocks.repeats
        (True, 2)

    Reference:
        https://github.com/jax-ml/jax/issues/3596: compile time of deep unrolled models.
    """
    return _check_model(model).with_scan(True)


def unroll_layers(model: Model) -> Model:
    """The same model with one block after the other; faster steps on CPU, longer compilation when deep.

        one block with arrays [L, ...]  ->  layers [block_0, …, block_L]

    Args:
        model: a `TransformerLM`, `TransformerStack` or `EncoderDecoder`, in either layout.

    Returns:
        A model with `config.scan = False`; its numbers are the same to rounding.

    Example:
        >>> from jax_attention import models
        >>> model = models.create(models.tiny(vocab_size=11, scan=True))
        >>> len(models.unroll_layers(model).blocks.rest)
        2

    """
    return _check_model(model).with_scan(False)


def _check_model(model: Model) -> Model:
    return check_instance(
        "model", model, (TransformerStack, TransformerLM, EncoderDecoder), "a Transformer of jax_attention.models"
    )


def untie_head(model: TransformerLM) -> TransformerLM:
    """The same model with a head of its own, which can be trained or adapted apart from the embedding.

        head = transpose(embedding)

    Args:
        model: a `TransformerLM` whose head is the embedding, `config.tied_head`.

    Returns:
        A model with `config.tied_head = False` and the same logits to rounding.

    Raises:
        ValueError: if the head is not tied.
        TypeError: if it is another model.

    Example:
        >>> from jax_attention import models
        >>> model = models.untie_head(models.create(models.tiny(vocab_size=11)))
        >>> model.head.kernel.shape, model.embedding.shape
        ((128, 11), (11, 128))
    """
    check_instance("model", model, TransformerLM, "a models.TransformerLM")
    fail_unless(model.config.tied_head, "model: expected a tied head, got a model with a head of its own.")
    config = model.config.replace(tied_head=False)
    abstract = jax.eval_shape(lambda: TransformerLM(config, rngs=nnx.Rngs(0)))
    arrays = arrays_by_path(model) | {"head.kernel": model.embedding[...].T}
    return replace_arrays(abstract, arrays, "model: expected the arrays of its config")
