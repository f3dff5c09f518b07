"""Every derivative of every part: both modes, second order, and under every transformation of JAX.

Users complain about fused kernels that have reverse mode only: flash-attention#1672, xformers#552, pytorch#116350.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jax_attention import (
    attend,
    attend_heads,
    attend_with_stats,
    masks,
    merge_partials,
    mods,
    normalizers,
    scores,
    testing,
)
from jax_attention.testing.check_rule import CHECKS
from tests.support import cases
from tests.support.tiers import slow, slow_except
from tests.support.tolerances import GRADIENT

SHAPE = cases.Shape(3, 4)
check = partial(check_grads, order=2, modes=("fwd", "rev"))
pytestmark = pytest.mark.usefixtures("x64")


def draw(seed: int = 0, batch_shape: tuple[int, ...] = ()) -> cases.Draw:
    return cases.Draw(np.random.default_rng(seed), SHAPE, batch_shape, "float64")


def arrays(d: cases.Draw, score=None) -> tuple[jax.Array, ...]:
    return tuple(x.jax for x in cases.operands(d, score))


def parameters(part: str, case: cases.Case, d: cases.Draw):
    """Float arrays of a part, or the array that a plain function closes over, and a function that rebuilds the part."""
    if case.name == "plain" and part in cases.PLAIN:
        make, tail = cases.PLAIN[part]
        return [d.normal(*tail).jax], make
    leaves, structure = jax.tree.flatten(case.build(d)[0])
    real = [i for i, x in enumerate(leaves) if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)]

    def rebuild(*params):
        changed = dict(zip(real, params, strict=True))
        return jax.tree.unflatten(structure, [changed.get(i, x) for i, x in enumerate(leaves)])

    return [jnp.asarray(leaves[i]) for i in real], rebuild


def check_close(actual, expected, label=""):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=GRADIENT["float64"], atol=GRADIENT["float64"], err_msg=label)


SMOOTH = [p for p in cases.named_parts() if p.values[1].name != "hard"]
PLAIN_FORMS = [part.id for part in SMOOTH if "mask" not in part.id and ("(" not in part.id or "elu" in part.id)]
"""Every score, mod and normalizer, without the cases that differ in arguments only. A mask has no array to
differentiate by, and it enters every derivative in the same way."""


def output_of_arrays(part: str, case: cases.Case):
    """The output as a function of query, key, value and every float array of the part; and these arrays."""
    d = draw()
    params, rebuild = parameters(part, case, d)
    operands = arrays(d, rebuild(*params) if part == "score" else None)

    def f(q, k, v, *params):
        return attend(q, k, v, **cases.rule_arguments(part, rebuild(*params)))

    return f, (*operands, *params)


@pytest.mark.parametrize(("part", "case"), slow_except(("normalize-entmax15", "mod-plain"), SMOOTH))
def test_second_order_in_both_modes(part, case):
    f, operands = output_of_arrays(part, case)
    check(jax.jit(f), operands)


@pytest.mark.parametrize(("part", "case"), slow_except((*PLAIN_FORMS, "mask-causal"), SMOOTH))
def test_derivatives_equal_finite_differences(part, case):
    """Both modes and the second order, by the operands and by every array of a part."""
    choice = case.build(draw())[0]
    skip = {*CHECKS} - {"finite differences"}
    testing.check_rule(**cases.rule_arguments(part, choice), head_size=cases.HEAD, skip=tuple(skip)).assert_ok()


@pytest.mark.parametrize(("part", "count"), [("score", 17), ("mod", 7), ("mask", 0), ("normalize", 3)])
def test_every_array_is_a_differentiable_leaf(part, count):
    """The test above would not notice an array that stopped being a pytree leaf; this one would."""
    d = draw()
    assert sum(len(parameters(part, case, d)[0]) for case in cases.PARTS[part]) == count


def test_hard_has_the_derivatives_of_softmax():
    """Derivatives of all orders are those of softmax by definition; the weights are one-hot."""
    d = draw()
    q, k, _ = arrays(d)
    v, direction = jnp.eye(4), jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), (q, k))

    def directional(normalize):
        f = lambda q, k: attend(q, k, v, normalize=normalize, mask=masks.causal(1))  # noqa: E731
        first = lambda q, k: jax.jvp(f, (q, k), direction)[1]  # noqa: E731
        reverse = jax.grad(lambda q, k: jnp.sum(jnp.sin(jnp.arange(12.0)).reshape(3, 4) * f(q, k)), (0, 1))
        second = jax.jvp(first, (q, k), direction)[1]
        return first(q, k), reverse(q, k), second, jax.jvp(reverse, (q, k), direction)[1]

    check_close(
        *jax.jit(lambda: [directional(normalize) for normalize in (normalizers.hard(), normalizers.softmax())])()
    )
    output = attend(q, k, v, normalize=normalizers.hard(), mask=masks.causal(1))
    assert set(np.unique(output)) == {0.0, 1.0}


@pytest.mark.parametrize("field", slow("logsumexp", "max_score", "entropy"))
def test_statistics_to_second_order(field):
    """The logsumexp may be part of a loss: jax#32484."""
    rule = {"mask": masks.causal(-1), "mods": (mods.soft_cap(2.0),)}  # row 0 is empty

    def f(q, k, slope):
        statistics = attend_with_stats(q, k, jnp.ones((4, 2)), score=scores.scaled_dot(slope), **rule)
        return getattr(statistics, field)[1:]

    q, k, _ = arrays(draw())
    check(jax.jit(f), (q, k, jnp.asarray(0.7)))
    whole = lambda q: getattr(attend_with_stats(q, k, jnp.ones((4, 2)), **rule), field)  # noqa: E731
    assert jnp.all(jax.jit(jax.jacobian(whole))(q)[0] == 0)


RULES = {
    "default": lambda slope: {},
    "causal alibi": lambda slope: {"mask": masks.causal(), "mods": (mods.alibi(slope),)},
    "sigmoid l2": lambda slope: {"score": scores.l2(slope), "normalize": normalizers.sigmoid(-1.0)},
    "plain": lambda slope: {"score": lambda q, k: jnp.tanh(slope * (q @ jnp.swapaxes(k, -1, -2)))},
}


def losses(name: str):
    return lambda q, k, v, slope: jnp.sum(jnp.sin(attend(q, k, v, **RULES[name](slope))))


def tangents(args):
    return tuple(cosines(x.shape, 1.0) for x in args)


def cosines(shape: tuple[int, ...], start: float = 0.0) -> jax.Array:
    return jnp.asarray(np.cos(start + np.arange(math.prod(shape))).reshape(shape))


@pytest.mark.parametrize("name", slow_except(("causal alibi",), RULES))
def test_transformations_agree(name):
    """hessian, jvp, linearize, forward over reverse and checkpoint give one derivative."""
    loss, args = losses(name), (*arrays(draw(2)), jnp.asarray(0.3))
    every, dx = (0, 1, 2, 3), tangents(args)
    dot = lambda a, b: sum(jnp.vdot(x, y) for x, y in zip(a, b, strict=True))  # noqa: E731

    @jax.jit
    def results():
        gradient = jax.grad(loss, every)(*args)
        hvp = jax.jvp(jax.grad(loss, every), args, dx)[1]
        rows = jax.hessian(loss, every)(*args)
        return {
            "jvp": (jax.jvp(loss, args, dx)[1], dot(gradient, dx)),
            "linearize": (jax.linearize(loss, *args)[1](*dx), dot(gradient, dx)),
            "jacfwd": (jax.jacfwd(loss, every)(*args), gradient),
            "checkpoint": (jax.grad(jax.checkpoint(loss), every)(*args), gradient),
            "reverse over reverse": (jax.grad(lambda *a: dot(jax.grad(loss, every)(*a), dx), every)(*args), hvp),
            "hessian": (tuple(sum(jnp.tensordot(h, x, x.ndim) for h, x in zip(r, dx, strict=True)) for r in rows), hvp),
        }

    for label, (actual, expected) in results().items():
        check_close(actual, expected, label)


SUBSETS = [s for n in (1, 2, 3, 4) for s in itertools.combinations(range(4), n)]


FEW_SUBSETS = [(0,), (1, 2), (3,), (0, 1, 2, 3)]


@pytest.mark.parametrize("subsets", [FEW_SUBSETS, *slow(SUBSETS)], ids=["few", "all"])
@pytest.mark.parametrize("name", ["causal alibi", *slow("sigmoid l2")])
def test_vmap_over_any_subset_of_arguments(name, subsets):
    """Outputs and gradients equal a Python loop, where fused kernels fail: jax#38495."""
    value_and_grad = jax.jit(jax.value_and_grad(losses(name), (0, 1, 2, 3)))
    many = tuple(np.stack([x, -0.5 * x]) for x in map(np.asarray, (*arrays(draw(3)), 0.3)))
    loop = {
        selection: value_and_grad(*(x[i] for x, i in zip(many, selection, strict=True)))
        for selection in itertools.product((0, 1), repeat=4)
    }
    for subset in subsets:
        axes = tuple(0 if i in subset else None for i in range(4))
        arguments = tuple(x if i in subset else x[0] for i, x in enumerate(many))
        actual = jax.vmap(value_and_grad, axes)(*arguments)
        for n in (0, 1):
            check_close(
                jax.tree.map(lambda x, n=n: x[n], actual), loop[tuple(n * (i in subset) for i in range(4))], str(subset)
            )


def test_vmap_over_parts():
    """A part is a pytree: a stack of parts is a part with stacked arrays."""
    q, k, v = arrays(draw(4))
    slopes = jnp.array([0.1, 0.4])
    f = lambda rule: jnp.sum(jnp.sin(attend(q, k, v, mods=(rule,))))  # noqa: E731
    actual = jax.jit(jax.vmap(jax.grad(f)))(mods.alibi(slopes))
    one = jax.jit(jax.grad(f))
    check_close(actual, mods.alibi(np.stack([one(mods.alibi(x)).slopes for x in slopes])))


def test_scan_over_layers_equals_a_loop():
    q, k, v = arrays(draw(5))
    k, v, slopes = k[:3], q + 1, jnp.array([0.1, 0.2, 0.3])
    layer = lambda x, slope: x + attend(x, k, v, mods=(mods.alibi(slope),), mask=masks.causal())  # noqa: E731

    def scanned(x, slopes):
        return jnp.sum(jax.lax.scan(jax.checkpoint(lambda x, s: (layer(x, s), None)), x, slopes)[0] ** 2)

    def looped(x, slopes):
        for i in range(3):
            x = layer(x, slopes[i])
        return jnp.sum(x**2)

    check_close(*jax.jit(lambda *x: [jax.value_and_grad(f, (0, 1))(*x) for f in (scanned, looped)])(q, slopes))


def test_grouped_heads_have_the_gradient_of_repeated_keys():
    """Gradients by arrays per head too, also by those that a plain function closes over."""
    d = draw(6, (4,))
    q, k, v = (jnp.swapaxes(x.jax, 0, 1) for x in cases.operands(d))
    k, v, weight, slopes = k[:, :2], v[:, :2], d.normal(1, 4).jax, d.between(0.1, 0.5).jax

    def loss(q, k, v, weight, slopes, repeats):
        k, v = (jnp.repeat(x, repeats, axis=1) for x in (k, v))
        rule = {"score": cases.plain_score(weight), "mods": (mods.alibi(slopes), cases.plain_mod(weight[..., :1]))}
        return jnp.sum(jnp.sin(attend_heads(q, k, v, **rule)))

    both = jax.jit(lambda *args: [jax.grad(loss, (0, 1, 2, 3, 4))(*args, repeats) for repeats in (1, 2)])
    check_close(*both(q, k, v, weight, slopes))


@pytest.mark.parametrize("cut", [*slow(0), 3])
def test_merged_partials_equal_attention_over_all_keys(cut):
    """Output, logsumexp, first and second derivatives. Row 0 has no keys; with cut 0, one partial has none."""
    args = arrays(draw(8))
    weights = (jnp.cos(jnp.arange(6.0)).reshape(3, 2), jnp.array([0.0, 1.0, -2.0]))

    def part(q, k, v, rows):
        rule = {"mask": masks.causal(-1), "key_positions": jnp.arange(4)[rows]}
        return attend_with_stats(q, k[rows], v[rows], **rule)[:2]

    whole = lambda *args: part(*args, slice(None))  # noqa: E731
    merged = lambda *args: merge_partials(part(*args, slice(0, cut)), part(*args, slice(cut, None)))  # noqa: E731

    @jax.jit
    def everything():
        results = []
        for f in (whole, merged):

            def loss(*args, f=f):
                output, logsumexp = f(*args)
                return jnp.sum(weights[0] * output) + jnp.sum(weights[1][1:] * logsumexp[1:])

            gradient = jax.grad(loss, (0, 1, 2))
            results.append((tuple(f(*args)), *jax.jvp(gradient, args, tangents(args))))
        return results

    check_close(*everything())


def test_merging_only_empty_partials_gives_zero_and_zero_gradients():
    empty = lambda o: (o, jnp.full(3, -jnp.inf))  # noqa: E731
    f = lambda o: merge_partials(empty(o), empty(2 * o))  # noqa: E731
    with jax.debug_nans(True):  # -inf - -inf must not even be an intermediate result
        output, logsumexp = f(jnp.ones((3, 2)))
        jacobian = jax.jacobian(lambda o: f(o).output)(jnp.ones((3, 2)))
    assert jnp.all(output == 0)
    assert jnp.all(logsumexp == -jnp.inf)
    assert jnp.all(jacobian == 0)
