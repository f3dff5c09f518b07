"""E1 to E6: shapes of every stage, order, depth, causality, and a trained model that continues sentences."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.inside_a_transformer import SMALL, causality, characters, depth, order, report, stages, weather
from experiments.inside_a_transformer.config import SENTENCE, CharacterConfig, Config, PassConfig
from jax_attention import data, masks, models, nn
from tests.experiments.outputs import read_numbers
from tests.experiments.quick_training import numpy_model, numpy_parameters, quick_training
from tests.support.arrays import normal
from tests.support.tolerances import FORWARD

TINY = PassConfig(vocabulary=300, width=24, heads=3, words_width=16, words_heads=2, subwords=300)
WORD = "一丁七一丁七"
"""Sentence of six of the first characters, so that a vocabulary of 300 has them; their ids are 0, 1 and 3."""
CONFIG = Config(
    sentence=WORD,
    full=TINY,
    characters=CharacterConfig(context=32, width=16, depth=1, heads=2, steps=1, seeds=(0,)),
    deep=SMALL.deep,
    causal=dataclasses.replace(SMALL.causal, depth=1),
)


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """Outcome of the command with two position schemes and a model trained for one step on a file."""
    folder = tmp_path_factory.mktemp("inside_a_transformer")
    text = folder / "text.txt"
    text.write_text("一丁七三" * 60, encoding="utf-8")
    out = folder / "out"
    with quick_training(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "POSITIONS", ("rotary", "none"))
        return report.main(report.Options(CONFIG, text, out=out))


def test_the_command_writes_numbers_and_figures(tiny_run):
    figures = ("gradients.png", "maps.png", "reach_masked.png", "reach_unmasked.png")
    numbers = read_numbers(tiny_run.folder, *figures)
    assert list(numbers) == [f"E{n}" for n in range(1, 7)]
    assert numbers["E5"]["above_the_diagonal"] == 0
    assert np.shape(numbers["E5"]["masked"]) == np.shape(numbers["E5"]["memory"]) == (6, 6)
    assert list(numbers["E6"]["trained"]) == ["attention"], "with a file no other model is trained"
    assert [result["seed"] for result in numbers["E6"]["trained"]["attention"]] == [0]


def test_e1_three_tokenizations_of_a_sentence():
    by_name = stages.tokenize_and_embed(TINY, SENTENCE, weather.training_text())
    assert [len(tokens.ids) for tokens in by_name.values()][:2] == [6, 18]
    assert len(by_name["subwords"].ids) < 18, "merges of bytes"
    assert by_name["characters"].ids[1] == by_name["characters"].ids[3], "the two 天 have the same id"
    for tokens in by_name.values():
        assert tokens.embedded == (len(tokens.ids), 16)
        assert max(tokens.ids) < tokens.vocabulary


def assert_order_matters_except_without_positions(schemes):
    for name, scheme in schemes.items():
        assert scheme.embedded == scheme.output == (6, 16)
        assert (scheme.moved < FORWARD["float32"]) == (name == "none"), (name, scheme.moved)


def test_e2_shapes_stay_and_order_matters_except_without_positions(tiny_run):
    assert_order_matters_except_without_positions(tiny_run.results.schemes)


@pytest.mark.slow
def test_e2_order_matters_under_every_scheme():
    schemes = order.run(TINY, 6)
    assert list(schemes) == ["sinusoidal", "learned", "rotary", "alibi", "none"]
    assert_order_matters_except_without_positions(schemes)


def test_e3_heads_are_concatenated_and_the_width_stays(tiny_run):
    assert [stage.shape for stage in tiny_run.results.heads] == [(6, 16), (2, 6, 6), (6, 16)]


def test_e3_the_output_is_projected_from_all_heads():
    layer = numpy_parameters(lambda rng: nn.MultiHeadAttention(2, 16, rngs=nnx.Rngs(rng)), jax.random.key(0))

    @jax.jit
    def parts(layer, x):
        weights, value = layer.weights(x, mask=masks.causal()), layer.projections.value(x).reshape(6, 2, 8)
        concatenated = jnp.einsum("hts,shd->thd", weights, value).reshape(6, 16)
        return weights, layer(x, mask=masks.causal()), layer.out(concatenated)

    weights, output, expected = map(np.asarray, parts(layer, normal(0, 6, 16)))
    assert np.abs(weights[0] - weights[1]).max() > 0.1, "two heads"
    np.testing.assert_allclose(output, expected, rtol=FORWARD["float32"], atol=FORWARD["float32"])


def test_e6_every_stage_of_the_full_pass(tiny_run):
    full = tiny_run.results.full
    shapes = {stage.name: stage.shape for stage in full.stages}
    assert shapes["ids"] == (6,)
    for name in ("embedding", "plus position", "block 0: stream", "block 1: stream", "norm"):
        assert shapes[name] == (6, 24), name
    assert shapes["block 1: weights"] == full.weights.shape[1:] == (3, 6, 6)
    assert shapes["last row"] == (1, 24)
    assert shapes["logits"] == full.logits.shape == (1, 300)
    model = numpy_model(models.LMConfig(vocab_size=300, context=64, width=24, depth=2, num_heads=3), TINY.seed)
    last = jax.jit(lambda ids: model(ids).logits[-1])(jnp.array([0, 1, 3, 0, 1, 3]))
    np.testing.assert_allclose(full.logits[0], last, rtol=FORWARD["float32"], atol=FORWARD["float32"])
    assert full.next_id == full.logits[0].argmax()
    assert full.next_character == chr(0x4E00 + full.next_id)
    assert (np.triu(full.weights, 1) == 0).all()


def test_e6_there_are_fifty_thousand_characters():
    tokenizer = stages.han_characters(50_000)
    assert tokenizer.vocab_size == 50_000
    assert tokenizer.decode(tokenizer.encode(SENTENCE)) == SENTENCE
    assert len(set(tokenizer.encode(SENTENCE).tolist())) == 5


def test_e4_gradients_shrink_without_residual_and_norm(tiny_run):
    gradients = tiny_run.results.gradients
    ratio = {name: (norms[:, 0] / norms[:, -1]) for name, norms in gradients.items()}
    assert {norms.shape for norms in gradients.values()} == {(len(SMALL.deep.seeds), 24)}
    assert (ratio["neither"] < 1e-3).all(), ratio
    assert (ratio["residual and norm"] > 0.3).all(), ratio
    assert (ratio["norm, no residual"] > 1e4 * ratio["neither"]).all(), ratio


def test_e4_the_norms_are_those_of_the_gradient():
    config = dataclasses.replace(SMALL.deep, depth=2, width=4, length=3)
    layer = numpy_parameters(partial(depth.make_layer, config), jax.random.key(1))
    names = ("residual and norm", "neither")

    @jax.jit
    def by_hand_and_through(layer, x):
        y = x + layer["attention"](layer["attention_norm"](x))
        y = y + layer["feed_forward"](layer["feed_forward_norm"](y))
        stacked = jax.tree.map(lambda leaf: leaf[None], layer)
        through = [depth.apply_layers(stacked, depth.KINDS[name], x) for name in names]
        return (y, layer["feed_forward"](layer["attention"](x))), through

    for name, expected, output in zip(names, *by_hand_and_through(layer, normal(2, 3, 4)), strict=True):
        np.testing.assert_allclose(output, expected, rtol=FORWARD["float32"], atol=FORWARD["float32"], err_msg=name)


def assert_nothing_comes_from_later_inputs(norms):
    assert norms.above_the_diagonal == 0.0, "exactly"
    assert (np.tril(norms.masked) + np.triu(np.ones((6, 6)), 1) > 0).all(), "everything comes from earlier ones"
    assert norms.unmasked.min() > 0
    assert norms.memory.min() > 0


def test_e5_nothing_comes_from_later_inputs(tiny_run):
    assert_nothing_comes_from_later_inputs(tiny_run.results.jacobian_norms)


@pytest.mark.slow
def test_e5_nothing_comes_from_later_inputs_of_two_layers():
    assert_nothing_comes_from_later_inputs(causality.run(SMALL.causal, 6))


@pytest.mark.slow
def test_e5_a_mask_that_looks_one_ahead_has_norms_above_the_diagonal():
    x, states = jax.random.normal(jax.random.key(0), (2, 6, CONFIG.causal.width))
    norms, memory = causality.jacobian_norms(CONFIG.causal, masks.causal(1), x, states)
    assert causality.JacobianNorms(norms, norms, memory).above_the_diagonal > 0


@pytest.fixture(scope="module")
def trained():
    return characters.run(SMALL.characters, SENTENCE)


@pytest.mark.slow
def test_e6_a_trained_model_ends_new_sentences_rightly(trained):
    attends, blind = (by_seed[0] for by_seed in trained.values())
    assert attends.held_out == blind.held_out == weather.SENTENCES_HELD_OUT
    assert attends.right > 0.85 * attends.held_out
    assert blind.right < attends.held_out / 2
    weather_word, ending = attends.text[0], attends.text[2:]
    assert ending.startswith(weather.ENDINGS[weather_word]), attends.text


def test_e6_held_out_sentences_are_new():
    text = weather.training_text()
    held_out = weather.held_out()
    assert len(held_out) == 29
    assert [beginning for beginning, _ in held_out if beginning in text] == []
    assert all(ending in text for _, ending in held_out)
    assert set("".join(beginning + ending for beginning, ending in held_out)) <= set(text)


def test_e6_any_file_can_be_trained_on(tiny_run):
    corpus = characters.prepare(CONFIG.characters, tiny_run.folder.parent / "text.txt")
    assert isinstance(corpus.tokenizer, data.Characters)
    (result,) = tiny_run.results.trained["attention"]
    assert (result.right, result.held_out) == (0, 0)
    assert len(result.text) == 16
    assert jnp.isfinite(result.validation_loss)
