"""The model as a pytree: functions over dicts, ensembles, optax, retracing, trained rules, dtypes, strict promotion."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_attention import masks, models, mods, normalizers, positions, scores
from tests.models import small
from tests.support.tiers import slow

TOKENS = small.tokens(2, 6)


def loss(model, tokens=TOKENS):
    logits = model(tokens[:, :-1]).logits
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


# --- Dicts and ensembles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scan", [*slow(False), True])
def test_dicts_and_modules_are_the_same_model(scan):
    model = small.model("rotary", windows=(3,))
    model = models.scan_layers(model) if scan else model
    params = models.to_dict(model)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(params))
    small.assert_trees_close(models.from_dict(model.config, params), model)
    small.assert_trees_close(models.from_dict(model.config, jax.tree.map(np.asarray, params)), model)
    apply = models.pure_model(model.config).apply
    cache = model.init_cache((2,))
    found, expected = small.jit(lambda m, p, c: (apply(p, TOKENS, cache=c), m(TOKENS, cache=c)))(model, params, cache)
    small.assert_trees_close(found, expected)


def test_pure_init_is_create():
    config = small.config("t5", depth=1)
    init = models.pure_model(config).init
    small.assert_trees_close(init(3), models.to_dict(models.create(config, 3)))
    small.assert_trees_close(init(jax.random.key(3)), init(3))
    assert not np.array_equal(init(4)["embedding"], init(3)["embedding"])


def test_wrong_dicts_are_named():
    model = small.model("learned", depth=1)

    def refused(change, message):
        params = models.to_dict(model)
        change(params)
        with pytest.raises(ValueError, match=message):
            models.from_dict(model.config, params)

    block = "blocks.rest.0"
    refused(lambda p: p.pop("position"), r"^params: expected the parameters of this config, got missing: position\.$")
    refused(lambda p: p.update(extra=jnp.ones(2)), r"not of this model: extra\.$")
    refused(
        lambda p: p["blocks"]["rest"]["0"]["feed_forward"]["up"].update(kernel=jnp.ones((3, 4))),
        rf"wrong shape: {block}.feed_forward.up.kernel: expected float32\[16,24\], got float32\[3,4\]\.$",
    )
    refused(lambda p: p.update(blocks={}), rf"missing: {block}.attention.out.bias, .* and \d+ more\.$")
    refused(lambda p: p.update(embedding=p.pop("position")), r"missing: position; wrong shape: embedding")


@pytest.mark.slow
def test_vmap_over_an_ensemble_of_models():
    """Modules and dicts under `vmap`: logits and gradients of each member are those of the member by itself."""
    config = small.config("rotary", depth=1)
    members = [small.model("rotary", seed, depth=1) for seed in range(2)]
    stack = jax.tree.map(lambda *x: np.stack(x), *members)
    stacked = jax.tree.map(lambda *x: np.stack(x), *map(models.to_dict, members))
    apply = models.pure_model(config).apply

    @small.jit
    def run(members, stack, stacked):
        one = jax.value_and_grad(loss)
        return (
            [one(member) for member in members],
            jax.vmap(one)(stack),
            jax.vmap(lambda params: apply(params, TOKENS).logits)(stacked),
            [member(TOKENS).logits for member in members],
        )

    single, together, logits, expected = run(members, stack, stacked)
    for i, (value, gradient) in enumerate(single):
        np.testing.assert_allclose(together[0][i], value, **small.CLOSE)
        member_gradient = jax.tree.map(lambda x, i=i: np.asarray(x)[i], together[1])
        small.assert_trees_close(models.to_dict(member_gradient), models.to_dict(gradient), **small.CLOSE_GRADIENT)
        np.testing.assert_allclose(logits[i], expected[i], **small.CLOSE)
    fresh = jax.eval_shape(jax.vmap(models.pure_model(config).init), jax.random.split(jax.random.key(0), 5))
    assert fresh["embedding"].shape == (5, small.VOCABULARY, 16)


@pytest.mark.slow
def test_optax_trains_the_module_itself_and_traces_once():
    """Fifty steps are one trace (flax#5158, flax#5548), from the initial numbers of models.create."""
    model = models.create(small.config("t5", depth=1))
    optimiser = optax.adam(1e-2)
    traces = 0

    @small.jit
    def step(model, state, tokens):
        nonlocal traces
        traces += 1
        value, gradient = jax.value_and_grad(loss)(model, tokens)
        updates, state = optimiser.update(gradient, state, model)
        return optax.apply_updates(model, updates), state, value

    state, losses = small.jit(optimiser.init)(model), []
    for _ in range(50):
        model, state, value = step(model, state, TOKENS)
        losses.append(float(value))
    assert traces == 1
    assert abs(losses[0] - np.log(small.VOCABULARY)) < 0.1, "the first guess is uniform"
    assert losses[-1] < 0.2 * losses[0]


def test_equal_configs_do_not_retrace_and_others_do():
    traces = 0

    @jax.jit
    def count(model):
        nonlocal traces
        traces += 1
        return model.embedding[...].sum()

    rule = lambda **new: {  # noqa: E731
        "mods": (mods.alibi(positions.alibi_slopes(4)),),
        "mask": masks.causal() & masks.sliding_window(3),
        "normalize": normalizers.softmax(jnp.full(4, 0.5)),
        **new,
    }
    for seed in range(3):
        count(small.model("none", seed, depth=1, **rule()))
    assert traces == 1
    count(small.model("none", depth=1, **rule(mods=(mods.alibi(2 * positions.alibi_slopes(4)),))))
    assert traces == 2, "another constant is another program"


# --- Trained rules ---------------------------------------------------------------------------------------------------

RULE = {
    "score": scores.general(np.eye(4, dtype=np.float32)),
    "mods": (mods.temperature(1.5), mods.bias(np.zeros((4, 1, 1), np.float32)), mods.relative(np.zeros((4, 8)))),
    "normalize": normalizers.softmax(jnp.zeros(4)),
}


def rule_parameters(params):
    """The parameters of the rule by name."""
    flat = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    return {name: x for name, x in flat.items() if "parameters" in name}


@pytest.mark.parametrize(
    ("scan", "depth"), [(False, 1), *(pytest.param(scan, 2, marks=pytest.mark.slow) for scan in (False, True))]
)
def test_train_rule_makes_the_rules_numbers_parameters(scan, depth):
    config = small.config("none", qk_norm=False, scan=scan, depth=depth, **RULE)
    assert rule_parameters(models.to_dict(jax.eval_shape(lambda: models.create(config)))) == {}
    trained = dataclasses.replace(config, train_rule=True)
    rng = jax.random.key(0)

    @small.jit
    def run():
        def loss_and_logits(model):
            logits = model(TOKENS).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], TOKENS[:, 1:]).mean(), logits

        gradient, logits = jax.grad(loss_and_logits, has_aux=True)(models.create(trained, rng))
        return models.create(config, rng)(TOKENS).logits, logits, gradient

    fixed, created, gradient = run()
    gradients = rule_parameters(models.to_dict(gradient))
    assert len(gradients) == (5 if scan else 5 * depth)
    zero = [name for name, x in gradients.items() if not np.any(x)]
    assert zero == [], "a bias per head cancels in a softmax, but not with a sink"
    assert all(x.dtype == jnp.float32 and not x.weak_type for x in gradients.values())
    np.testing.assert_allclose(created, fixed, **small.CLOSE)


def test_rule_parameters_have_the_parameters_dtype():
    config = small.config("none", depth=1, param_dtype="bfloat16", sinks=True, train_rule=True, mods=RULE["mods"])
    params = models.to_dict(jax.eval_shape(lambda: models.create(config)))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    assert len(rule_parameters(params)) == 4


def test_sinks_are_learned_and_take_weight():
    model = models.create(small.config("t5", depth=1))
    assert {x.shape for x in rule_parameters(models.to_dict(model)).values()} == {(4,)}
    weights = small.jit(lambda model: model(TOKENS, capture=models.Capture("all")))(model).captured.weights[0]
    np.testing.assert_allclose(weights[:, :, 0].sum(-1), np.full((2, 4), 0.5), atol=0.05)


def test_order_of_mods_is_position_config_cap():
    """T5's table, which all layers share and the call passes, comes before the mods of the config."""
    tokens = small.tokens(small.CONTEXT)  # long enough for buckets of one and of both directions to differ
    model = small.model("t5", depth=1, score_cap=None, sinks=False, mods=(mods.temperature(3.0),))
    capped = small.model("t5", depth=1, score_cap=1.5, sinks=False, mods=(mods.temperature(3.0),))

    @small.jit
    def both(model, capped):
        block = model.blocks.rest[0]
        x = block.attention_norm(model.embedding[...][tokens])
        table = mods.relative(model.relative[...], bidirectional=False)
        call = lambda *chain: block.attention.weights(x, mods=chain)  # noqa: E731
        capture = models.Capture("all")
        return (
            model(tokens, capture=capture).captured.weights[0],
            call(table, mods.temperature(3.0)),
            capped(tokens, capture=capture).captured.weights[0],
            call(table, mods.temperature(3.0), mods.soft_cap(1.5)),
            call(mods.temperature(3.0), mods.soft_cap(1.5), table),
        )

    plain, expected, found, in_order, wrong = both(model, capped)
    np.testing.assert_allclose(plain, expected, **small.CLOSE)
    np.testing.assert_allclose(found, in_order, **small.CLOSE)
    assert not np.allclose(found, wrong, atol=1e-3)


# --- Dtypes and strict modes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, *slow(False)])
def test_bfloat16_keeps_parameters_and_logits_float32(tied):
    plain = small.model("rotary", tied_head=tied, depth=1)
    config = dataclasses.replace(plain.config, dtype="bfloat16")
    model = models.from_dict(config, models.to_dict(plain))

    @small.jit
    def run(model):
        return model(TOKENS).logits, plain(TOKENS).logits

    logits, exact = map(np.asarray, run(model))
    hidden, cache = jax.eval_shape(lambda: model.hidden(TOKENS, cache=model.init_cache((2,))))
    gradient = jax.eval_shape(jax.grad(loss), model)
    assert {x.dtype for x in jax.tree.leaves((model, gradient))} == {jnp.dtype("float32")}
    assert (logits.dtype, hidden.dtype, cache.rest[0].key.dtype) == (jnp.float32, jnp.bfloat16, jnp.bfloat16)
    error = np.abs(np.asarray(logits) - exact).max()
    assert 1e-4 < error < 0.05 * np.abs(exact).max() + 0.05
    rounded = np.asarray(logits.astype(jnp.bfloat16).astype(jnp.float32))
    assert not np.array_equal(logits, rounded), "the last product is not rounded to bfloat16"


@pytest.mark.slow
def test_float64_is_float64(x64):
    model = small.model("rotary", depth=1, dtype="float64", param_dtype="float64", train_rule=True, mods=RULE["mods"])
    logits = small.jit(lambda model: model(TOKENS).logits)(model)
    assert {x.dtype for x in jax.tree.leaves(model)} == {jnp.dtype("float64")}
    assert logits.dtype == jnp.float64
    narrow = jax.tree.map(lambda x: np.asarray(x, np.float32), models.to_dict(model))
    config = dataclasses.replace(model.config, dtype="float32", param_dtype="float32")
    single = small.jit(lambda params: models.pure_model(config).apply(params, TOKENS).logits)(narrow)
    assert single.dtype == jnp.float32
    error = np.abs(np.asarray(logits) - np.asarray(single)).max()
    assert 1e-9 < error < 1e-4


WIDTHS = (("float32", False), ("float32", True), ("bfloat16", False), ("float64", True))
GRID = [
    pytest.param(
        scheme,
        *width,
        depth,
        id=f"{scheme}-{width[0]}-{'x64' if width[1] else 'x32'}-{depth}",
        # Each of these widths once, with another scheme: tracing a gradient takes half a second and more.
        marks=() if i == j > 0 and depth == 1 else pytest.mark.slow,
    )
    for i, scheme in enumerate(small.SCHEMES)
    for j, width in enumerate(WIDTHS)
    for depth in ((1, 2) if i == j else (2,))
]


@pytest.mark.parametrize(("scheme", "dtype", "x64", "depth"), GRID)
def test_strict_promotion_through_forward_and_backward(scheme, dtype, x64, depth):
    """Tracing is enough: promotion happens, or is refused, before anything runs."""
    with jax.enable_x64(x64), jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        expected = jnp.dtype("float64" if dtype == "float64" else "float32")
        config = small.config(scheme, depth=depth, dropout=0.1, dtype=dtype, param_dtype=expected.name)

        def run(tokens, segments):
            def objective(model):
                rng = jax.random.key(1)
                packed = model(tokens, positions=jnp.arange(6, dtype=jnp.int32), segment_ids=segments, rng=rng)
                cached = model(tokens, cache=model.init_cache((2,)), capture=models.Capture("all", "all"))
                return (packed.logits + cached.logits).sum()

            return jax.grad(objective)(models.create(config, jax.random.key(0)))

        gradient = jax.eval_shape(run, TOKENS, jnp.zeros((2, 6), jnp.int32))
    assert {x.dtype for x in jax.tree.leaves(gradient)} == {expected}
