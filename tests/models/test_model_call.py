"""One call of the model: any batch dimensions, any length, scanned or unrolled, with remat, with captures."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import models, mods
from tests.models import small
from tests.support.tiers import slow

T = 7


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["learned", "rotary"])
def test_vmap_of_one_sequence_is_the_batch(scheme):
    @small.jit
    def both(model, tokens):
        single = lambda row: model(row).logits  # noqa: E731
        return model(tokens).logits, jax.vmap(jax.vmap(single))(tokens), single(tokens[1, 2])

    batch, mapped, single = both(small.model(scheme), small.tokens(2, 3, T))
    assert batch.shape == (2, 3, T, small.VOCABULARY)
    np.testing.assert_allclose(batch, mapped, **small.CLOSE)
    np.testing.assert_allclose(batch[1, 2], single, **small.CLOSE)
    assert np.std(batch) > 0.3


@pytest.mark.slow
def test_any_length_up_to_the_context_gives_the_prefix():
    model, tokens = small.model("learned"), small.tokens(2, small.CONTEXT)
    call = small.jit(lambda model, tokens: model(tokens).logits)
    full = np.asarray(call(model, tokens))
    for count in (1, 11):
        np.testing.assert_allclose(call(model, tokens[:, :count]), full[:, :count], **small.CLOSE)
    for empty in ((2, 0), (0, 3)):
        assert call(model, small.tokens(*empty)).shape == (*empty, small.VOCABULARY)


def test_small_integer_tokens_and_lists_are_the_same_tokens():
    """Tokens of a byte-level vocabulary may be uint8, which cannot hold V = 256 itself."""
    model = small.model("none", vocab_size=256, depth=1)
    numbers = [0, 255, 7]
    arrays = (np.asarray(numbers, np.int32), np.asarray(numbers, np.uint8), np.asarray(numbers, np.int64), numbers)
    found = small.jit(lambda: [model(x).logits for x in arrays])()
    assert np.all(np.isfinite(found[0]))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_positions_may_be_one_row_for_all_or_a_list():
    model, tokens = small.model("rotary", depth=1, windows=(None,)), small.tokens(2, 3)
    moved = np.arange(3) + 4
    positions = (None, moved, np.stack([moved, moved]), [0, 5, 9], np.asarray([[0, 5, 9]], np.int16))
    plain, shifted, rows, listed, short = small.jit(lambda: [model(tokens, positions=p).logits for p in positions])()
    np.testing.assert_allclose(shifted, plain, **small.CLOSE)
    np.testing.assert_allclose(shifted, rows, **small.CLOSE)
    np.testing.assert_allclose(listed, short, **small.CLOSE)
    assert not np.allclose(listed, plain, atol=1e-2)


# --- Layouts ---------------------------------------------------------------------------------------------------------


@partial(small.jit, static_argnums=2)
def everything(model, tokens, with_gradient):
    """Everything that a call returns, and a gradient."""
    capture = models.Capture("all", "all")

    def loss(model):
        out = model(tokens, rng=jax.random.key(3), capture=capture)
        return (out.logits**2).sum(), out

    (_, dropped), gradient = jax.value_and_grad(loss, has_aux=True)(model) if with_gradient else (loss(model), None)
    found = {
        "dropped": (dropped.logits, dropped.captured),
        "layers": [jax.tree.leaves(block) for block in model.blocks.layers()],
    }
    if with_gradient:
        found["gradient"] = gradient.embedding[...], [jax.tree.leaves(block) for block in gradient.blocks.layers()]
    return found


@pytest.mark.parametrize(
    ("scheme", "depth", "windows"),
    [("none", 2, (3,)), *(pytest.param(x, 5, (3, None), marks=pytest.mark.slow) for x in ("learned", "rotary"))],
)
def test_scanned_equals_unrolled(scheme, depth, windows):
    """Five layers and a pattern of two: the scan runs two rounds, and one layer is left over. With gradients."""
    with_gradient = depth == 5
    plain = small.model(scheme, depth=depth, windows=windows, dropout=0.2, attention_dropout=0.2)
    stacked = models.scan_layers(plain)
    assert (stacked.blocks.repeats, len(stacked.blocks.scanned)) == (2, len(windows))
    assert len(stacked.blocks.rest) == depth - 2 * len(windows)
    tokens = small.tokens(2, T)
    found, expected = everything(stacked, tokens, with_gradient), everything(plain, tokens, with_gradient)
    if with_gradient:
        scale = max(float(np.abs(x).max()) for x in jax.tree.leaves(expected["gradient"]))
        small.assert_trees_close(found.pop("gradient"), expected.pop("gradient"), rtol=1e-5, atol=1e-5 * scale)
    small.assert_trees_close(found, expected, **small.CLOSE)
    alike = (0, 1) if len(windows) == 1 else (0, 2)  # layers with the same window
    kept = [np.asarray(expected["dropped"][1].weights[layer]) > 0 for layer in alike]
    assert not np.array_equal(*kept), "layers drop different weights"


def test_dropout_acts_on_the_embedding_and_on_both_sublayers_independently():
    """Attention and feed-forward add 1 everywhere, so dropout at rate 1/2 makes their sum 0, 2 or 4."""
    model = small.model("learned", depth=1, dropout=0.5)
    block = model.blocks.rest[0]
    for linear in (block.attention.out, block.feed_forward.down):
        linear.kernel[...] = jnp.asarray(np.zeros(linear.kernel.shape, np.float32))
        linear.bias[...] = jnp.asarray(np.ones(16, np.float32))
    capture = models.Capture(hidden="all")
    run = small.jit(lambda rng: model(small.tokens(small.CONTEXT), rng=rng, capture=capture).captured.hidden)
    dropped, clean = run(jax.random.key(0)), run(None)
    added = np.round(np.asarray(dropped[0]) - np.asarray(dropped[-1]), 3)
    values, counts = np.unique(added, return_counts=True)
    assert list(values) == [0, 2, 4]
    np.testing.assert_allclose(counts / counts.sum(), [0.25, 0.5, 0.25], atol=0.12)
    kept = np.asarray(dropped[-1]) != 0
    np.testing.assert_allclose(np.asarray(dropped[-1])[kept], 2 * np.asarray(clean[-1])[kept], **small.CLOSE)
    assert 0.4 < kept.mean() < 0.6


@pytest.mark.slow
def test_attention_dropout_is_the_same_in_both_layouts_and_differs_between_layers():
    plain = small.model("none", depth=2, attention_dropout=0.5)
    call = small.jit(lambda model: model(small.tokens(5), rng=jax.random.key(0), capture=models.Capture("all")))
    found, expected = call(models.scan_layers(plain)), call(plain)
    small.assert_trees_close(found, expected, **small.CLOSE)
    kept = [np.tril(np.asarray(expected.captured.weights[layer]) > 0) for layer in (0, 1)]
    assert not np.array_equal(*kept)
    assert 0.2 < kept[0].sum() / (4 * 15) < 0.8


@pytest.mark.parametrize(
    ("scheme", "depth"),
    slow(*(pytest.param(*x) for x in (("none", 2), ("learned", 2), ("rotary", 4)))),
)
def test_both_layouts_start_with_the_same_numbers(scheme, depth):
    config = small.config(scheme, depth=depth)
    rng = jax.random.key(5)

    @small.jit
    def make():
        plain, stacked = (models.create(dataclasses.replace(config, scan=scan), rng) for scan in (False, True))
        kernels = [block.feed_forward.up.kernel[...] for block in plain.blocks.layers()]
        return (plain, models.unroll_layers(stacked)), (stacked, models.scan_layers(plain)), kernels

    (plain, unrolled), (stacked, scanned), kernels = make()
    small.assert_trees_close(unrolled, plain)
    small.assert_trees_close(scanned, stacked)
    assert unrolled.config == config
    assert not np.array_equal(kernels[0], kernels[1])


def test_a_pattern_longer_than_the_model_leaves_nothing_to_scan():
    plain = small.model("none", depth=1, windows=(2, None, 4))
    stacked = models.scan_layers(plain)
    assert (stacked.blocks.repeats, len(stacked.blocks.rest), stacked.config.scan) == (0, 1, True)
    small.assert_trees_close(models.to_dict(stacked), models.to_dict(plain))


def test_initial_numbers_are_those_of_gpt2():
    """Kernels are normal(0.02), divided by sqrt(2 depth) before the residual; norms are 1 and biases 0 (GPT-2)."""
    config = small.config("learned", width=128, depth=8, ff_size=256, vocab_size=300, scan=True)
    model = small.jit(lambda: models.create(config, jax.random.key(0)))()
    block = model.blocks.scanned[0]
    deviations = {
        "embedding": (model.embedding, 0.02),
        "position": (model.position, 0.02),
        "joined": (block.attention.projections.joined.kernel, 0.02),
        "up": (block.feed_forward.up.kernel, 0.02),
        "out": (block.attention.out.kernel, 0.02 / 4),
        "down": (block.feed_forward.down.kernel, 0.02 / 4),
    }
    for name, (kernel, deviation) in deviations.items():
        np.testing.assert_allclose(np.std(np.asarray(kernel[...])), deviation, rtol=0.1, err_msg=name)
    assert np.all(np.asarray(block.attention_norm.scale[...]) == 1)
    assert np.all(np.asarray(block.feed_forward.up.bias[...]) == 0)


def test_post_norm_is_after_each_sum():
    """Post-norm is norm(x + sublayer(x)), without a norm at the end (Vaswani et al., 2017)."""
    model = small.model("sinusoidal", depth=1)
    assert model.final_norm is None

    @small.jit
    def run(model):
        block, capture = model.blocks.rest[0], models.Capture(hidden="all")
        hidden = model(small.tokens(T), capture=capture).captured.hidden
        x = block.attention_norm(hidden[-1] + block.attention(hidden[-1]))
        return hidden[0], block.feed_forward_norm(x + block.feed_forward(x))

    np.testing.assert_allclose(*run(model), **small.CLOSE)


# --- Remat -----------------------------------------------------------------------------------------------------------


def count_products(jaxpr) -> int:
    """Number of matrix products in a program, inner programs included."""
    total = 0
    for equation in jaxpr.eqns:
        total += equation.primitive.name == "dot_general"
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            total += count_products(inner)
    return total


@pytest.mark.parametrize(
    ("scan", "depth", "compared"),
    [
        (False, 1, ("full",)),
        *(pytest.param(scan, 2, ("dots", "full"), marks=pytest.mark.slow) for scan in (False, True)),
    ],
)
def test_remat_recomputes_products_and_changes_no_number(scan, depth, compared):
    """Remat must have an effect (flax#4626): products are counted, and numbers compared."""
    model, tokens = small.model("learned", depth=depth), small.tokens(2, T)
    model = models.scan_layers(model) if scan else model

    def loss(model):
        return (model(tokens, rng=jax.random.key(0)).logits ** 2).mean()

    found, products = {}, {}
    for remat in ("none", "dots", "full"):
        variant = jax.tree.map(lambda x: x, model)
        variant.config = dataclasses.replace(model.config, remat=remat, dropout=0.1)
        if remat in ("none", *compared):
            found[remat] = small.jit(jax.value_and_grad(loss))(variant)
        products[remat] = count_products(jax.make_jaxpr(jax.grad(loss))(variant).jaxpr)
    assert products["none"] < products["dots"] < products["full"], products
    for remat in compared:
        np.testing.assert_allclose(found[remat][0], found["none"][0], **small.CLOSE)
        for x, y in zip(jax.tree.leaves(found[remat][1]), jax.tree.leaves(found["none"][1]), strict=True):
            np.testing.assert_allclose(x, y, **small.CLOSE_GRADIENT)


# --- Capture ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scan", [*slow(False), True])
def test_capture_changes_no_bit_and_returns_what_the_layers_compute(scan):
    """Attention weights can be returned without a change of the output (flax#4744)."""
    model, tokens = small.model("rotary", depth=3), small.tokens(2, T)
    layout = models.scan_layers(model) if scan else model
    call = jax.jit(lambda model, capture: model(tokens, capture=capture), static_argnums=1)
    plain, captured = call(layout, None), call(layout, models.Capture("all", "all"))
    assert plain.captured is None
    np.testing.assert_array_equal(plain.logits, captured.logits)

    weights, hidden, cross = captured.captured
    assert cross == {}
    assert (list(weights), list(hidden)) == ([0, 1, 2], [-1, 0, 1, 2])
    embedded = np.asarray(model.embedding[...])[tokens] * np.float32(model.config.width**0.5)
    np.testing.assert_array_equal(hidden[-1], embedded)

    @small.jit
    def by_hand(model, hidden):
        cap = (mods.soft_cap(model.config.score_cap),)
        layers = enumerate(model.blocks.rest)
        maps = [layer.attention.weights(layer.attention_norm(hidden[n - 1]), mods=cap) for n, layer in layers]
        return model.unembed(model.final_norm(hidden[2])), maps

    logits, maps = by_hand(model, hidden)
    np.testing.assert_allclose(logits, captured.logits, **small.CLOSE)
    for n, expected in enumerate(maps):
        np.testing.assert_allclose(weights[n], expected, **small.CLOSE)
        np.testing.assert_allclose(np.asarray(weights[n]).sum(-1), np.ones((2, 4, T)), **small.CLOSE)
    assert np.all(np.asarray(weights[0])[..., 6, :4] == 0), "layer 0 has a window of 3"
    assert np.all(np.asarray(weights[1])[..., 6, :4] > 0), "layer 1 has none"


def test_capture_returns_only_the_requested_layers():
    model = models.scan_layers(small.model("rotary", depth=3))
    capture = models.Capture(weights=(2, 1), hidden=(0,))
    out = jax.eval_shape(lambda model: model(small.tokens(4), capture=capture), model)
    assert (sorted(out.captured.weights), list(out.captured.hidden)) == ([1, 2], [0])
    assert (out.captured.weights[1].shape, out.captured.hidden[0].shape) == ((4, 4, 4), (4, 16))


@pytest.mark.slow
def test_captured_weights_with_a_cache_are_over_its_slots():
    model, tokens = small.model("rotary", depth=3), small.tokens(2, T)
    capture = models.Capture(weights=(1,))

    @small.jit
    def both(model, stacked):
        cache = stacked(tokens[:, :4], cache=stacked.init_cache((2,), capacity=9)).cache
        outputs = model(tokens, capture=capture), stacked(tokens[:, 4:], cache=cache, capture=capture)
        return [out.captured.weights[1] for out in outputs]

    full, part = both(model, models.scan_layers(model))
    assert part.shape == (2, 4, 3, 9)
    np.testing.assert_allclose(part[..., :T], full[..., 4:, :], **small.CLOSE)
    np.testing.assert_array_equal(part[..., T:], 0)
