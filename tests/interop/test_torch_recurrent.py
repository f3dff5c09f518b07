"""`nn.GRU` and `nn.LSTM` against PyTorch's: layers, directions, states and lengths, forward and every gradient."""

from __future__ import annotations

from functools import partial

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax.test_util import check_grads
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from jax_attention import interop, nn
from tests.models import small
from tests.support.tiers import slow, slow_except
from tests.support.tolerances import FORWARD
from tests.support.torch_parity import check_equal, check_round_trip, inputs, randomized

B, T, D, H = 3, 4, 5, 3
KINDS = {"GRU": (torch.nn.GRU, nn.GRU), "LSTM": (torch.nn.LSTM, nn.LSTM)}
BOTH = pytest.mark.parametrize("kind", KINDS)
GRU_FIRST = pytest.mark.parametrize("kind", slow_except(("GRU",), KINDS))
LSTM_FIRST = pytest.mark.parametrize("kind", slow_except(("LSTM",), KINDS))
"""Only one of the two runs in `make test`: both cells share the loop over rows."""
OPTIONS = {
    "plain": {},
    "no bias": {"bias": False},
    "deep, two ways, sequence first": {"num_layers": 2, "bidirectional": True, "batch_first": False},
}
LENGTHS = np.array([2, 4, 1])


def torch_layer(kind, dtype="float32", **options):
    options = {"batch_first": True, "dtype": getattr(torch, dtype), **options}
    return randomized(KINDS[kind][0](D, H, **options))


def as_tuple(state):
    """The arrays of a state: `(h, c)` of an LSTM, `(h,)` of a GRU."""
    return state if isinstance(state, tuple) else (state,)


def from_tuple(state):
    """The inverse of `as_tuple`."""
    return state if len(state) > 1 else state[0]


def run_torch(module, x, *state, lengths=None):
    """Call the torch layer with the layouts of JAX: batch first, states `[..., layers * directions, H]`."""
    state = from_tuple([part.moveaxis(-2, 0).contiguous() for part in state]) if state else None
    x = x if module.batch_first else x.swapaxes(0, 1)
    if lengths is not None:
        options = {"batch_first": module.batch_first}
        packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False, **options)
        out, final = module(packed, state)
        out = pad_packed_sequence(out, total_length=T, **options)[0]
    else:
        out, final = module(x, state)
    return (out if module.batch_first else out.swapaxes(0, 1), *(part.moveaxis(0, -2) for part in as_tuple(final)))


def run_jax(layer, x, *state, lengths=None):
    out, final = layer(x, from_tuple(state) if state else None, lengths)
    return (out, *as_tuple(final))


def check(kind, options, dtype, batch=B, count=T, with_state=True, lengths=None):
    module = torch_layer(kind, dtype, **options)
    check_round_trip(module)
    cells = module.num_layers * (2 if module.bidirectional else 1)
    states = [(batch, cells, H)] * (len(KINDS[kind][1].state_names) if with_state else 0)
    arrays = inputs(dtype, (batch, count, D), *states)
    return check_equal(module, arrays, partial(run_torch, lengths=lengths), partial(run_jax, lengths=lengths), dtype)


QUICK = {("no bias", "GRU"), ("deep, two ways, sequence first", "LSTM")}
GRID = [
    pytest.param(options, kind, marks=() if (options, kind) in QUICK else pytest.mark.slow)
    for options in OPTIONS
    for kind in KINDS
]


@pytest.mark.parametrize(("options", "kind"), GRID)
def test_float32(kind, options):
    check(kind, OPTIONS[options], "float32", with_state=options != "plain")


@LSTM_FIRST
@pytest.mark.slow
@pytest.mark.parametrize("options", ["plain", "deep, two ways, sequence first"])
def test_float64(kind, options, x64):
    check(kind, OPTIONS[options], "float64")


@pytest.mark.slow
@BOTH
def test_one_row_of_one_sequence(kind):
    check(kind, {"bidirectional": True}, "float32", batch=1, count=1)


DEEP = [("float32", 1), *slow(pytest.param("float32", 2), pytest.param("float64", 2))]


@GRU_FIRST
@pytest.mark.parametrize(("dtype", "depth"), DEEP)
def test_lengths_are_those_of_packed_sequences(kind, dtype, depth, x64):
    check(kind, {"num_layers": depth, "bidirectional": True}, dtype, lengths=LENGTHS)


# --- Lengths, states, batch dimensions -------------------------------------------------------------------------------


def layer_of(kind, **options):
    """A layer with random numbers, made without compiling its initialisation."""
    return small.filled(lambda: KINDS[kind][1](D, H, rngs=nnx.Rngs(0), **options))


@GRU_FIRST
def test_rows_after_the_length_change_nothing(kind):
    """Not even NaN does, and the gradients of the others stay finite; a length of 0 gives the state back."""
    layer, (x,) = layer_of(kind, bidirectional=True), inputs("float32", (B, T, D))
    lengths = np.array([2, 4, 0])
    is_padding = np.arange(T)[:, None] >= lengths[:, None, None]
    state = from_tuple([jnp.full((2, H), 0.5)] * len(layer.state_names))

    @jax.jit
    def run(layer, x):
        def loss(layer, x):
            outputs, final = layer(x, state, lengths)
            return jnp.sum(jnp.sin(outputs)), (outputs, final)

        return jax.grad(loss, (0, 1), has_aux=True)(layer, x)

    actual, expected = run(layer, np.where(is_padding, np.nan, x)), run(layer, x)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(np.where(is_padding, actual[1][0], 0), np.zeros((B, T, 2 * H)))
    assert not np.where(is_padding, actual[0][1], 0).any()
    for part in as_tuple(actual[1][1]):
        assert np.array_equal(part[2], np.full((2, H), 0.5))


@LSTM_FIRST
def test_batch_dimensions_are_independent_sequences(kind):
    layer, (x,) = layer_of(kind, num_layers=2), inputs("float32", (2, B, T, D))
    run = jax.jit(lambda x, lengths: layer(x, None, lengths))
    lengths = np.array([[1, 2, 3], [4, 3, 2]])
    outputs, state = run(x, lengths)
    assert outputs.shape == (2, B, T, H)
    close = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
    for index in np.ndindex(2, B):
        single, single_state = run(x[index], lengths[index])
        np.testing.assert_allclose(outputs[index], single, **close)
        for part, expected in zip(as_tuple(state), as_tuple(single_state), strict=True):
            assert part.shape == (2, B, 2, H)
            np.testing.assert_allclose(part[index], expected, **close)


@LSTM_FIRST
def test_step_by_step_equals_the_whole_sequence(kind):
    layer, (x,) = layer_of(kind, num_layers=2), inputs("float32", (B, T, D))
    step, carry = jax.jit(layer), None
    outputs, state = step(x)
    for t in range(T):
        out, carry = step(x[:, t : t + 1], carry)
        np.testing.assert_allclose(out[:, 0], outputs[:, t], rtol=FORWARD["float32"], atol=FORWARD["float32"])
    for part, expected in zip(as_tuple(carry), as_tuple(state), strict=True):
        np.testing.assert_allclose(part, expected, rtol=FORWARD["float32"], atol=FORWARD["float32"])


@BOTH
def test_no_rows_and_no_sequences(kind):
    layer = layer_of(kind, bidirectional=True)
    state = from_tuple([jnp.full((B, 2, H), 0.5)] * len(layer.state_names))
    run = jax.jit(layer)
    outputs, final = run(jnp.ones((B, 0, D)), state)
    assert outputs.shape == (B, 0, 2 * H)
    assert all(np.array_equal(part, np.full((B, 2, H), 0.5)) for part in as_tuple(final))
    outputs, final = run(jnp.ones((0, T, D)), None, jnp.zeros(0, int))
    assert outputs.shape == (0, T, 2 * H)
    assert [part.shape for part in as_tuple(final)] == [(0, 2, H)] * len(layer.state_names)


@BOTH
def test_dtypes(kind):
    """bfloat16 parameters compute in bfloat16; `dtype` says otherwise. The abstract call shows it without compiling."""
    x = jax.ShapeDtypeStruct((T, D), jnp.bfloat16)
    for dtype, expected in ((None, jnp.bfloat16), (jnp.float32, jnp.float32)):
        options = {"param_dtype": jnp.bfloat16, "dtype": dtype}
        outputs, state = jax.eval_shape(lambda layer, x: layer(x), layer_of(kind, **options), x)
        assert {y.dtype for y in (outputs, *as_tuple(state))} == {jnp.dtype(expected)}
    assert jax.eval_shape(lambda layer, x: layer(x), layer_of(kind), x)[0].dtype == jnp.float32


@pytest.mark.slow
@GRU_FIRST
def test_every_derivative(kind, x64):
    layer = layer_of(kind, bidirectional=True, param_dtype=jnp.float64)
    leaves, structure = jax.tree.flatten(layer)
    x, *state = inputs("float64", (2, 3, D), *[(2, 2, H)] * len(layer.state_names))

    @jax.jit
    def run(leaves, x, state):
        return run_jax(jax.tree.unflatten(structure, leaves), x, *state, lengths=np.array([3, 2]))

    check_grads(run, (leaves, x, state), order=2, modes=("fwd", "rev"))


@BOTH
def test_the_input_product_is_done_once(kind):
    """The scan holds the product of the hidden state alone."""
    jaxpr = jax.make_jaxpr(lambda layer, x: layer(x))(layer_of(kind), jnp.ones((B, T, D))).jaxpr
    (scan,) = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
    sizes = {"all": list(products(jaxpr.eqns)), "inside": list(products([scan]))}
    gates = KINDS[kind][1].gates * H
    assert sizes == {"all": [(B * T, gates), (B, gates)], "inside": [(B, gates)]}


def products(equations):
    """Shapes of the products of matrices, those of inner programs included."""
    for equation in equations:
        if equation.primitive.name == "dot_general":
            yield equation.outvars[0].aval.shape
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from products(inner.eqns)


# --- Errors ----------------------------------------------------------------------------------------------------------

WRONG = {
    "features": (
        lambda: layer_of("GRU")(jnp.ones((T, 2))),
        r"x: expected .*\[\.\.\., T, 5\].*float32\[4,2\].*input_size",
    ),
    "axes": (lambda: layer_of("GRU")(jnp.ones(D)), r"x: expected .*float32\[5\]. Add the missing axes"),
    "state": (
        lambda: layer_of("GRU")(jnp.ones((B, T, D)), jnp.ones((1, B, H))),
        r"state: expected h of shape \(3, 1, 3\).*got float32\[1,3,3\].*moveaxis",
    ),
    "cell": (
        lambda: layer_of("LSTM")(jnp.ones((B, T, D)), (jnp.ones((B, 1, H)), jnp.ones((B, 2, H)))),
        r"state: expected c of shape \(3, 1, 3\).*got float32\[3,2,3\]",
    ),
    "pair": (
        lambda: layer_of("LSTM")(jnp.ones((B, T, D)), jnp.ones((B, 1, H))),
        r"state: expected the tuple \(h, c\), got float32\[3,1,3\]. Pass both",
    ),
    "lengths": (
        lambda: layer_of("GRU")(jnp.ones((B, T, D)), None, np.array([1, 2])),
        r"lengths: expected shape \(3,\).*got int\d+\[2\].*one length per sequence",
    ),
    "floating lengths": (
        lambda: layer_of("GRU")(jnp.ones((B, T, D)), None, np.ones(3)),
        r"lengths: expected int values, got float64\[3\]",
    ),
    "no layers": (lambda: layer_of("GRU", num_layers=0), r"num_layers: expected an int >= 1, got 0"),
    "projection": (
        lambda: interop.from_torch(torch.nn.LSTM(4, 5, proj_size=2)),
        r"LSTM: expected a layer that both libraries have, got one with proj_size. .*use proj_size=0",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_explained(name):
    call, message = WRONG[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call()
