"""The config of a recurrent encoder–decoder: sizes, the cell, and its attention rule, if any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from jax_attention import normalizers, scores
from jax_attention.core.checks import check_instance, check_int, fail_unless
from jax_attention.core.part_checks import check_part
from jax_attention.core.short_repr import short_repr
from jax_attention.models.config_checks import Cell, Dtype
from jax_attention.nn import Additive, Concat, General, Location

SCORE_MODULES = (Additive, General, Concat, Location)


@short_repr
@dataclass(frozen=True, kw_only=True, repr=False)
class RNNConfig:
    """Sizes of a recurrent encoder–decoder and the rule of its attention.

        c_i = sum_j a_ij h_j,   a_i = normalize(score(s_(i-1), h));        without a score c_i = C for all i

    Args:
        source_vocab_size: tokens of the source.
        vocab_size: V, tokens of the target.
        context: largest number of source tokens with `nn.Location`, whose parameters fix S: shorter sources are padded.
            Other scores read sources of any length.
        width: D, the size of the embeddings.
        hidden_size: H, the size of the decoder's state and of the encoder's outputs; a bidirectional encoder has half
            of it in each direction, so that dot products need no projection.
        num_layers: number of layers of encoder and decoder.
        cell: "gru" or "lstm".
        bidirectional: whether the encoder reads the source from both ends.
        score: None for no attention; a score such as `scores.dot()`; or a class whose parameters are learned:
            `nn.Additive`, `nn.General`, `nn.Concat`, `nn.Location`.
        normalize: the rule's normalizer; None is softmax.
        attention_size: A of `nn.Additive`; H if None.
        attention_vector: False makes `nn.Additive` the plain sum of its A units, without a learned vector.
        train_rule: floats inside score and normalize are parameters instead of constants.
        dropout: rate on embeddings and on the hidden states before the head.
        param_dtype: dtype of the parameters.

    Returns:
        A config; `models.create(config)` makes the model.

    Raises:
        ValueError: if a number is out of range or sizes do not fit, naming the field.
        TypeError: if a size is no int, or score or normalize is no such part.

    Example:
        >>> from jax_attention import models, nn
        >>> models.RNNConfig(source_vocab_size=11, vocab_size=13, score=nn.Additive).hidden_size
        128

    Reference:
        Bahdanau, Cho, Bengio (2015), "Neural machine translation by jointly learning to align and translate".
    """

    source_vocab_size: int
    vocab_size: int
    context: int = 256
    width: int = 128
    hidden_size: int = 128
    num_layers: int = 1
    cell: Cell = "gru"
    bidirectional: bool = True
    score: Any = None
    normalize: Any = None
    attention_size: int | None = None
    attention_vector: bool = True
    train_rule: bool = False
    dropout: float = 0.0
    param_dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        for name in ("source_vocab_size", "vocab_size", "context", "width", "hidden_size", "num_layers"):
            check_int(name, getattr(self, name), 1, "Sizes of a model are static.")
        if self.attention_size is not None:
            check_int("attention_size", self.attention_size, 1, "None takes hidden_size.")
            fail_unless(
                self.score is Additive,
                f"attention_size: expected None with a score that has none, got {self.attention_size}. Leave it out.",
            )
        fail_unless(
            self.attention_vector or self.score is Additive,
            "attention_vector: expected True with a score that has none, got False. Leave it out.",
        )
        fail_unless(self.cell in get_args(Cell), f"cell: expected one of {get_args(Cell)}, got {self.cell!r}.")
        for name in ("bidirectional", "attention_vector", "train_rule"):
            check_instance(name, getattr(self, name), bool, "True or False")
        fail_unless(
            not self.bidirectional or self.hidden_size % 2 == 0,
            f"hidden_size: expected an even number, half for each direction of the encoder, got {self.hidden_size}. Or "
            "pass bidirectional=False.",
        )
        if self.score is not None and self.score not in SCORE_MODULES:
            check_part("score", self.score, scores.CATALOGUE, "Leave it out for none.")
        fail_unless(
            self.score is not None or (self.normalize is None and not self.train_rule),
            "score: expected a score with normalize or train_rule, got None, which attends to nothing. Leave both out.",
        )
        if self.normalize is not None:
            check_part("normalize", self.normalize, normalizers.CATALOGUE, "Leave it out for softmax().")
        fail_unless(
            isinstance(self.dropout, (int, float)) and 0 <= self.dropout < 1,
            f"dropout: expected 0 <= rate < 1, got {self.dropout!r}. 0 switches it off.",
        )
        fail_unless(
            self.param_dtype in get_args(Dtype),
            f"param_dtype: expected one of {get_args(Dtype)}, got {self.param_dtype!r}.",
        )

    @property
    def position(self) -> str:
        """The position scheme, which a recurrent state does not need: generation has no length limit."""
        return "none"

    @property
    def endless(self) -> bool:
        """Whether generated text may be longer than `context`, which limits only the sources of `nn.Location`."""
        return True

    @property
    def fixed_length(self) -> bool:
        """Whether parameters fix the number of source rows, as those of `nn.Location` do."""
        return self.score is Location
