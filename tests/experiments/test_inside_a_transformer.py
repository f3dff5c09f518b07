"""E1 to E6: shapes of every stage, order, depth, causality, and a trained model that continues."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.inside_a_transformer import SMALL, causality, characters, depth, order, stages, weather
from experiments.inside_a_transformer import __main__ as command
from experiments.inside_a_transformer.config import SENTENCE, CharacterConfig, Config, PassConfig
from jax_attention import data, masks, models, nn
from tests.experiments.folder import commanded, drawn, left_behind, numpy_start, small_programs
from tests.support.arrays import normal
from tests.support.tolerances import FORWARD

TINY = PassConfig(vocabulary=300, width=24, heads=3, words_width=16, words_heads=2, subwords=300)
WORD = "一丁七一丁七"
"""A sentence of six of the first characters, so that a vocabulary of 300 has them; their ids are 0, 1 and 3."""
CONFIG = Config(
    sentence=WORD,
    full=TINY,
    characters=CharacterConfig(context=32, width=16, depth=1, heads=2, steps=1, seeds=(0,)),
    deep=SMALL.deep,
    causal=dataclasses.replace(SMALL.causal, depth=1),
)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """What the command finds and leaves, with two position schemes and a model trained for one step on a file."""
    folder = tmp_path_factory.mktemp("inside_a_transformer")
    text = folder / "text.txt"
    text.write_text("一丁七三" * 60, encoding="utf-8")
    out = folder / "out"
    with small_programs(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "POSITIONS", ("rotary", "none"))
        return commanded(command, CONFIG, out, text=text)


def test_the_command_leaves_numbers_and_figures(walked):
    pictures = ("gradients.png", "maps.png", "reach_masked.png", "reach_unmasked.png")
    numbers = left_behind(walked.folder, *pictures)
    assert list(numbers) == [f"E{n}" for n in range(1, 7)]
    assert numbers["E5"]["above_the_diagonal"] == 0
    assert np.shape(numbers["E5"]["masked"]) == np.shape(numbers["E5"]["memory"]) == (6, 6)
    assert list(numbers["E6"]["trained"]) == ["attention"], "of a file nothing else is trained"
    assert [made["seed"] for made in numbers["E6"]["trained"]["attention"]] == [0]


def test_e1_three_ways_to_cut_a_sentence():
    found = stages.cuts(TINY, SENTENCE, weather.training_text())
    assert [len(cut.ids) for cut in found.values()][:2] == [6, 18]
    assert len(found["subwords"].ids) < 18, "merges of bytes"
    assert found["characters"].ids[1] == found["characters"].ids[3], "the two 天 are one id"
    for cut in found.values():
        assert cut.embedded == (len(cut.ids), 16)
        assert max(cut.ids) < cut.vocabulary


def assert_order_is_seen_exactly_when_told(found):
    for name, told in found.items():
        assert told.embedded == told.output == (6, 16)
        assert (told.moved < FORWARD["float32"]) == (name == "none"), (name, told.moved)


def test_e2_shapes_stay_and_order_is_seen_exactly_when_told(walked):
    assert_order_is_seen_exactly_when_told(walked.found.told)


@pytest.mark.slow
def test_e2_every_scheme_tells_of_the_order_but_none():
    found = order.run(TINY, 6)
    assert list(found) == ["sinusoidal", "learned", "rotary", "alibi", "none"]
    assert_order_is_seen_exactly_when_told(found)


def test_e3_heads_are_joined_and_the_width_stays(walked):
    assert [stage.shape for stage in walked.found.heads] == [(6, 16), (2, 6, 6), (6, 16)]


def test_e3_the_output_is_made_of_every_heads_mixture():
    layer = numpy_start(lambda rng: nn.MultiHeadAttention(2, 16, rngs=nnx.Rngs(rng)), jax.random.key(0))

    @jax.jit
    def parts(layer, x):
        weights, value = layer.weights(x, mask=masks.causal()), layer.projections.value(x).reshape(6, 2, 8)
        joined = jnp.einsum("hts,shd->thd", weights, value).reshape(6, 16)
        return weights, layer(x, mask=masks.causal()), layer.out(joined)

    weights, output, expected = map(np.asarray, parts(layer, normal(0, 6, 16)))
    assert np.abs(weights[0] - weights[1]).max() > 0.1, "two heads"
    np.testing.assert_allclose(output, expected, rtol=FORWARD["float32"], atol=FORWARD["float32"])


def test_e6_every_stage_of_the_full_pass(walked):
    found = walked.found.full
    shapes = {stage.name: stage.shape for stage in found.stages}
    assert shapes["ids"] == (6,)
    for name in ("embedding", "plus position", "block 0: stream", "block 1: stream", "norm"):
        assert shapes[name] == (6, 24), name
    assert shapes["block 1: weights"] == found.weights.shape[1:] == (3, 6, 6)
    assert shapes["last row"] == (1, 24)
    assert shapes["logits"] == found.logits.shape == (1, 300)
    model = drawn(models.LMConfig(vocab_size=300, context=64, width=24, depth=2, num_heads=3), TINY.seed)
    last = jax.jit(lambda ids: model(ids).logits[-1])(jnp.array([0, 1, 3, 0, 1, 3]))
    np.testing.assert_allclose(found.logits[0], last, rtol=FORWARD["float32"], atol=FORWARD["float32"])
    assert found.next_id == found.logits[0].argmax()
    assert found.next_character == chr(0x4E00 + found.next_id)
    assert (np.triu(found.weights, 1) == 0).all()


def test_e6_there_are_fifty_thousand_characters():
    tokenizer = stages.han_characters(50_000)
    assert tokenizer.vocab_size == 50_000
    assert tokenizer.decode(tokenizer.encode(SENTENCE)) == SENTENCE
    assert len(set(tokenizer.encode(SENTENCE).tolist())) == 5


def test_e4_what_the_gradient_loses_on_its_way(walked):
    gradients = walked.found.gradients
    ratio = {name: (norms[:, 0] / norms[:, -1]) for name, norms in gradients.items()}
    assert {norms.shape for norms in gradients.values()} == {(len(SMALL.deep.seeds), 24)}
    assert (ratio["neither"] < 1e-3).all(), ratio
    assert (ratio["residual and norm"] > 0.3).all(), ratio
    assert (ratio["norm, no residual"] > 1e4 * ratio["neither"]).all(), ratio


def test_e4_the_norms_are_those_of_the_gradient():
    config = dataclasses.replace(SMALL.deep, depth=2, width=4, length=3)
    layer = numpy_start(partial(depth.make_layer, config), jax.random.key(1))
    names = ("residual and norm", "neither")

    @jax.jit
    def by_hand_and_through(layer, x):
        y = x + layer["attention"](layer["attention_norm"](x))
        y = y + layer["feed_forward"](layer["feed_forward_norm"](y))
        stacked = jax.tree.map(lambda leaf: leaf[None], layer)
        through = [depth.through(stacked, depth.KINDS[name], x) for name in names]
        return (y, layer["feed_forward"](layer["attention"](x))), through

    for name, expected, found in zip(names, *by_hand_and_through(layer, normal(2, 3, 4)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=FORWARD["float32"], atol=FORWARD["float32"], err_msg=name)


def assert_nothing_comes_from_later_inputs(found):
    assert found.above == 0.0, "exactly"
    assert (np.tril(found.masked) + np.triu(np.ones((6, 6)), 1) > 0).all(), "everything comes from earlier ones"
    assert found.unmasked.min() > 0
    assert found.memory.min() > 0


def test_e5_nothing_comes_from_later_inputs(walked):
    assert_nothing_comes_from_later_inputs(walked.found.reach)


@pytest.mark.slow
def test_e5_nothing_comes_from_later_inputs_of_two_layers():
    assert_nothing_comes_from_later_inputs(causality.run(SMALL.causal, 6))


@pytest.mark.slow
def test_e5_a_mask_that_looks_one_ahead_would_be_seen():
    x, states = jax.random.normal(jax.random.key(0), (2, 6, CONFIG.causal.width))
    norms, memory = causality.jacobians(CONFIG.causal, masks.causal(1), x, states)
    found = causality.Reach(norms, norms, memory)
    assert found.above > 0


@pytest.fixture(scope="module")
def continued():
    return characters.run(SMALL.characters, SENTENCE)


@pytest.mark.slow
def test_e6_a_trained_model_ends_new_sentences_rightly(continued):
    looking, blind = (runs[0] for runs in continued.values())
    assert looking.asked == blind.asked == weather.SENTENCES_HELD_OUT
    assert looking.right > 0.85 * looking.asked
    assert blind.right < looking.asked / 2
    given, follows = looking.text[0], looking.text[2:]
    assert follows.startswith(weather.WHAT_FOLLOWS[given]), looking.text


def test_e6_held_out_sentences_are_new():
    text = weather.training_text()
    held_out = weather.held_out()
    assert len(held_out) == 29
    assert [given for given, _ in held_out if given in text] == []
    assert all(follows in text for _, follows in held_out)
    assert set("".join(given + follows for given, follows in held_out)) <= set(text)


def test_e6_any_file_can_be_trained_on(walked):
    corpus = characters.prepare(CONFIG.characters, walked.folder.parent / "text.txt")
    assert isinstance(corpus.tokenizer, data.Characters)
    (made,) = walked.found.continued["attention"]
    assert (made.right, made.asked) == (0, 0)
    assert len(made.text) == 16
    assert jnp.isfinite(made.validation_loss)
