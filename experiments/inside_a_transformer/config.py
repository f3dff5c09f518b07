"""Sizes of all parts."""

from __future__ import annotations

from dataclasses import dataclass, field

SENTENCE = "今天的天气很"


@dataclass(frozen=True)
class PassConfig:
    """E1, E3 and E6: a random model of the sizes that tutorials use.

    `words_width` and `words_heads` are the sizes of E1 and E3.
    """

    vocabulary: int = 50_000
    width: int = 768
    depth: int = 2
    heads: int = 12
    words_width: int = 512
    words_heads: int = 8
    subwords: int = 400
    seed: int = 0


@dataclass(frozen=True)
class CharacterConfig:
    """E6: the small model that is trained to continue sentences."""

    context: int = 48
    width: int = 64
    depth: int = 2
    heads: int = 4
    steps: int = 600
    batch_size: int = 16
    learning_rate: float = 3e-3
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class DepthConfig:
    """E4: the stack of layers whose gradient norms are measured."""

    depth: int = 32
    width: int = 64
    heads: int = 4
    length: int = 16
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class CausalConfig:
    """E5: a decoder of vectors, small enough for its full Jacobian."""

    width: int = 32
    depth: int = 3
    heads: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Config:
    """The sentence, and the sizes of every part."""

    sentence: str = SENTENCE
    full: PassConfig = field(default_factory=PassConfig)
    characters: CharacterConfig = field(default_factory=CharacterConfig)
    deep: DepthConfig = field(default_factory=DepthConfig)
    causal: CausalConfig = field(default_factory=CausalConfig)


SMALL = Config(
    full=PassConfig(vocabulary=11_000, width=96, heads=4, words_width=64, words_heads=4),
    characters=CharacterConfig(width=32, steps=250, learning_rate=6e-3, seeds=(0,)),
    deep=DepthConfig(depth=24, width=16, heads=2, length=8, seeds=(0,)),
    causal=CausalConfig(width=16, depth=2, heads=2),
)
