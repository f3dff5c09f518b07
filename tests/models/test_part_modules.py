"""Modules as parts of a config: each layer makes its own, and a part may depend on the rows that the layer reads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_attention import decoding, masks, models, mods, nn, normalizers, scores
from jax_attention.core.struct import array_field, struct
from jax_attention.core.tree_paths import arrays_by_path
from tests.models import small
from tests.support.arrays import check_close, difference, normal
from tests.support.tiers import slow_except

TOKENS = small.tokens(2, 9)


@struct
class Forget(mods.Mod):
    """`score + c_t - c_s`, with c the logarithms of the gates summed up to each row: Lin et al. (2025), eq. 5."""

    queries: jax.Array = array_field("T")
    keys: jax.Array = array_field("S")

    def __call__(self, scores, q_pos, k_pos):
        return scores + self.queries[..., :, None] - self.keys[..., None, :]


class Projected(nn.PartModule):
    """A number for each head, from a row."""

    def __init__(self, size, heads, *, rngs):
        self.linear = nn.Linear(size, heads, rngs=rngs)

    @classmethod
    def for_layer(cls, config, *, rngs):
        return cls(config.width, config.num_heads, rngs=rngs)


class ForgetGate(Projected):
    """A gate for each head and token, from the rows."""

    def as_part(self, x):
        gates = jnp.moveaxis(jnp.cumsum(jax.nn.log_sigmoid(self.linear(x)), axis=-2), -1, -2)  # [..., N, T]
        return Forget(gates, gates)


class ContentSink(Projected):
    """A softmax whose sink depends on the mean row."""

    def as_part(self, x):
        return normalizers.softmax(self.linear(x.mean(-2)))


def test_a_gate_that_reads_the_rows_is_the_formula():
    layer = nn.MultiHeadAttention(
        2, 8, mods=(ForgetGate(8, 2, rngs=nnx.Rngs(1)),), mask=masks.causal(), rngs=nnx.Rngs(0)
    )
    x = np.asarray(normal(0, 3, 5, 8), np.float64)
    q, k, v = (np.asarray(y, np.float64).reshape(3, 5, 2, 4) for y in layer.projections(x.astype(np.float32), x, x))
    gate = layer.mods[0].linear
    c = np.cumsum(np.log(1 / (1 + np.exp(-(x @ gate.kernel[...] + gate.bias[...])))), axis=1)
    z = np.einsum("btnh,bsnh->bnts", q, k) / 2 + np.moveaxis(c, -1, 1)[..., None] - np.moveaxis(c, -1, 1)[..., None, :]
    z = np.where(np.tril(np.ones((5, 5), bool)), z, -np.inf)
    weights = np.exp(z - z.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    assert difference(layer.weights(jnp.asarray(x, jnp.float32)), weights) < 1e-5
    output = layer(jnp.asarray(x, jnp.float32))
    expected = layer.out(jnp.asarray(np.einsum("bnts,bsnh->btnh", weights, v).reshape(3, 5, 8), jnp.float32))
    assert difference(output, expected) < 1e-5


RULES = {
    "score": {"score": nn.Additive},
    "mod": {"mods": (ForgetGate, mods.soft_cap(5.0))},
    "normalizer": {"normalize": ContentSink},
}


@pytest.mark.parametrize("rule", slow_except(("mod",), RULES))
@pytest.mark.parametrize("scheme", slow_except(("rotary",), ["rotary", "alibi"]))
def test_layers_have_parameters_of_their_own_and_all_of_them_learn(rule, scheme):
    config = small.config(scheme, sinks=False, **RULES[rule])
    model = models.create(config)

    @small.jit
    def run(model):
        loss = lambda model, tokens: (model(tokens).logits ** 2).mean()  # noqa: E731
        scanned = models.scan_layers(model)
        remat = models.from_dict(config.replace(remat="full"), models.to_dict(model))
        gradient = jax.grad(loss)(model, TOKENS)
        return gradient, *(m(TOKENS).logits for m in (model, scanned, remat))

    gradient, logits, *others = run(model)
    for other in others:
        check_close(other, logits, 1e-5)
    plain = models.create(small.config(scheme, sinks=False))
    assert difference(plain(TOKENS).logits, logits) > 1e-5
    own = {path: g for path, g in arrays_by_path(gradient).items() if path not in arrays_by_path(plain)}
    assert len(own) == config.depth * len(arrays_by_path(own_module(rule, config)))
    assert all(float(jnp.abs(g).max()) > 0 for g in own.values())


def own_module(rule, config):
    part = next(iter(RULES[rule].values()))
    part = part[0] if isinstance(part, tuple) else part
    return part.for_layer(config, rngs=nnx.Rngs(0))


def test_other_kernels_do_not_depend_on_the_rule():
    """Models that differ in their rule alone start from the same projections."""
    plain, gated = (arrays_by_path(models.create(small.config("rotary", mods=m))) for m in ((), (ForgetGate,)))
    for path, x in plain.items():
        np.testing.assert_array_equal(gated[path], x)


def test_a_config_with_modules_is_json():
    config = small.config("rotary", score=nn.General, mods=(ForgetGate,))
    data = models.config_to_json(config)
    assert data["mods"] == [{"function": f"{__name__}:ForgetGate"}]
    with pytest.raises(ValueError, match="which is not allowed to run"):
        models.config_from_json(data)
    assert models.config_from_json(data, allow_code=(__name__,)) == config


def test_scores_decode_with_a_cache_and_gates_say_that_they_cannot():
    model = models.create(small.config("rotary", score=nn.Additive))
    tokens = decoding.generate(model, TOKENS[0, :4], max_new_tokens=3).tokens
    whole = jnp.concatenate([TOKENS[0, :4], tokens])
    np.testing.assert_array_equal(jnp.argmax(model(whole).logits[3:-1], axis=-1), tokens)
    gated = models.create(small.config("rotary", mods=(ForgetGate,)))
    with pytest.raises(ValueError, match=r"ForgetGate: expected a call that has all rows.*Call the model without"):
        decoding.generate(gated, TOKENS[0, :4], max_new_tokens=3)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"score": nn.Location}, ValueError, r"Location: expected a class with for_layer\(config, rngs=...\)"),
        ({"mask": ForgetGate}, TypeError, "mask: expected a part"),
        ({"score": scores.dot}, TypeError, "score: expected a part, got the factory dot itself"),
        ({"mods": (nnx.Linear,)}, TypeError, "mod: expected a part"),
    ],
)
def test_wrong_classes_are_refused(fields, error, message):
    with pytest.raises(error, match=message):
        models.create(small.config("rotary", **fields))
