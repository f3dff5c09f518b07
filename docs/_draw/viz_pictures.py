"""Draw the pictures of `docs/viz.md`: `python -m docs._draw.viz_pictures` writes `docs/img/viz_*.png`.

A font with Chinese characters is needed. The weights come from the library's rules over hand-written features, so that
the reason for each weight is visible. The grid of heads comes from untrained layers: it only shows the drawing.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention import attention_weights, masks, nn, positions, viz

IMAGES = Path(__file__).parents[1] / "img"
SENTENCE = ["The", " cat", " sat", " on", " the", " mat", "\n"]
TEXT = (
    "a row of weights says where one word of the text looks and a column says who looks at it so a map of many words "
    "still has to name every one"
)
CHINESE = ["我", "喜欢", "写", "代码"]

# Features of a word: who acts, what happens, where, and small words. The query of `sat` asks for who and where.
ENGLISH_KEYS = jnp.array(
    [[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0, 1], [0.3, 0, 1, 0], [0, 0, 0, 0.2]]
)
ENGLISH_QUERIES = jnp.array(
    [[1, 0, 0.2, 0], [0, 1, 0, 0.4], [1, 0.1, 1, 0], [0, 0.5, 1, 0], [0.2, 0, 1, 0], [0, 1, 0.4, 0], [1, 1, 1, 0]]
)
CHINESE_KEYS = jnp.array([[1.0, 0, 0], [0, 1, 0], [0, 0.8, 0.3], [0, 0, 1]])
CHINESE_QUERIES = jnp.array([[0.3, 1, 0], [1, 0.2, 0.6], [0.4, 0, 1], [0.1, 0.9, 0.4]])


def english() -> jax.Array:
    """Weights `[7, 7]` of one English sentence."""
    return attention_weights(5.0 * ENGLISH_QUERIES, ENGLISH_KEYS, ENGLISH_KEYS)


def chinese() -> jax.Array:
    """Weights `[4, 4]` of one Chinese sentence."""
    return attention_weights(4.0 * CHINESE_QUERIES, CHINESE_KEYS, CHINESE_KEYS)


def translation() -> jax.Array:
    """Weights `[4, 5]` of a translation that puts "yesterday" last; two words of the source share one meaning."""
    source, target = jnp.array([3, 0, 1, 1, 2]), jnp.array([0, 1, 2, 3])
    blur = 0.25 * jax.random.normal(jax.random.key(3), (5, 4))
    return attention_weights(7.0 * jnp.eye(4)[target], jnp.eye(4)[source] + blur, jnp.eye(4)[source])


def layers(depth: int = 3, heads: int = 6) -> jax.Array:
    """Weights `[depth, heads, 7, 7]` of randomly initialized causal layers with rotary positions."""
    x = jax.random.normal(jax.random.key(0), (len(SENTENCE), 48))
    make = lambda rng: nn.MultiHeadAttention(  # noqa: E731
        heads, 48, rope=positions.rotary(), mask=masks.causal(), rngs=nnx.Rngs(rng)
    )
    stack = jax.vmap(make)(jax.random.split(jax.random.key(1), depth))
    return jax.lax.map(lambda layer: layer.weights(3.0 * x), stack)


def long_text(length: int = 96) -> jax.Array:
    """Weights `[length, length]` under a window of 24 keys."""
    x = jax.random.normal(jax.random.key(2), (length, 32))
    return attention_weights(0.6 * x, x, x, mask=masks.sliding_window(24))


def main(folder: Path = IMAGES) -> None:
    """Draw all pictures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    heads = layers()
    figures = {
        "heat_map": viz.heat_map(english(), SENTENCE, title="The cat sat on the mat"),
        "heat_map_chinese": viz.heat_map(chinese(), CHINESE, title="我喜欢写代码"),
        "heat_map_long": viz.heat_map(long_text(), 3 * TEXT.split(), title="96 words, window of 24 keys"),
        "alignment": viz.alignment_map(
            translation(), ["昨天", "我", "写", "了", "代码"], ["I", "wrote", "code", "yesterday"]
        ),
        "head_grid": viz.head_grid(heads, SENTENCE, title="Three untrained causal layers of six heads"),
        "entropy": viz.entropy_map(heads),
        "rollout": viz.heat_map(viz.rollout(heads), SENTENCE, title="Rollout through three layers"),
    }
    for name, figure in figures.items():
        viz.save(figure, folder / f"viz_{name}.png")


if __name__ == "__main__":
    main()
