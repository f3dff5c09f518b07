"""NumPy numbers in a rule do not decide in which precision it is computed (jax#11031, jax#22688)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jax_attention import (
    Dropout,
    attend,
    attend_heads,
    attention_weights,
    attention_weights_heads,
    masks,
    mods,
    normalizers,
    scores,
)
from tests.support.arrays import normal

Q, K, V = (normal(i, 3, 5, 4) for i in range(3))
NUMBERS = {
    "scale": {"score": scores.scaled_dot(np.float64(0.3))},
    "scales": {"score": scores.cosine(np.full(3, 2.0))},
    "l2": {"score": scores.l2(np.float64(0.3))},
    "general": {"score": scores.general(np.eye(4))},
    "cap": {"mods": (mods.soft_cap(np.float64(3)),)},
    "temperature": {"mods": (mods.temperature(np.ones(3) * 2),)},
    "a list": {"mods": (mods.alibi([0.5, 0.25, 0.125]),)},
    "bias": {"mods": (mods.bias(np.ones((5, 5))),)},
    "bias of every score": {"mods": (mods.bias(np.ones((3, 5, 5))),)},
    "table": {"mods": (mods.relative(np.arange(8.0)),)},
    "sink": {"normalize": normalizers.softmax(np.zeros(3))},
    "sigmoid": {"normalize": normalizers.sigmoid(np.float64(-1))},
}


@pytest.mark.parametrize("promotion", ["standard", "strict"])
@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
def test_float32_operands_are_computed_in_float32(implementation, promotion):
    def products(rule):
        """Dtypes of all values in the traced call."""
        call = lambda q, k, v: attend(q, k, v, **rule, implementation=implementation)  # noqa: E731
        return {str(x.aval.dtype) for x in variables(jax.make_jaxpr(call)(Q, K, V).jaxpr)}

    with jax.enable_x64(True), jax.numpy_dtype_promotion(promotion):
        wide = {name: sorted(products(rule) & {"float64"}) for name, rule in NUMBERS.items()}
    assert wide == {name: [] for name in NUMBERS}


def variables(jaxpr):
    """Results of all equations with more than one number, those of inner programs too."""
    for equation in jaxpr.eqns:
        # A NumPy array may be cast once: its cast is what brings it to float32.
        yield from (x for x in equation.outvars if x.aval.size > 1)
        for inner in jaxprs_in_params(equation.params):
            yield from variables(inner)


def test_float64_operands_stay_float64():
    with jax.enable_x64(True):
        q, k, v = (jnp.asarray(x, jnp.float64) for x in (Q, K, V))
        for rule in NUMBERS.values():
            assert attend(q, k, v, **rule).dtype == jnp.float64


MASKED = {"mask": masks.causal() & ~masks.dilated(2)}


@pytest.mark.parametrize(
    ("normalize", "implementation"),
    [
        (normalizers.softmax(), "reference"),
        (normalizers.softmax(), "blockwise"),
        (normalizers.sigmoid(), "blockwise"),
        (normalizers.sparsemax(), "reference"),
    ],
    ids=str,
)
def test_debug_modes_see_no_inf_in_finite_results(normalize, implementation):
    """jax#37422: masked scores are -inf inside; outputs and gradients are finite, eagerly too."""
    rule = {**MASKED, "normalize": normalize, "implementation": implementation}
    heads = [np.moveaxis(x, 0, 1) for x in (Q, K, V)]
    with jax.debug_infs(True), jax.debug_nans(True):
        # Under jit, as the residuals of an empty row hold its maximum, -inf.
        jax.jit(jax.grad(lambda q: attend(q, K, V, **rule, dropout=Dropout(jax.random.key(0), 0.2)).sum()))(Q)
        attend_heads(*heads, **rule)
        attention_weights(Q, K, V, **rule)
        attention_weights_heads(*heads, **rule)
        # A user's function is not cached, and evaluated in another way.
        attend(Q, K, V, **rule | {"mask": lambda q, k: k < q})
        attend(Q, K, V, **rule, mods=(lambda z, q, k: jnp.where(q == 3, -jnp.inf, z),))
