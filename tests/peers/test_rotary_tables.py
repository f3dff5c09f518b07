"""Rotary embedding by given cosines and sines: those of transformers, in both styles, with gradients, in layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers.models.gptj import modeling_gptj as gptj
from transformers.models.llama import modeling_llama as llama

from jax_attention import attend_heads, decoding, interop, masks, models, nn, positions
from jax_attention.cache import EMPTY
from tests.models import small
from tests.support.tolerances import FORWARD, GRADIENT, PARITY

B, T, N, H, L = 2, 5, 3, 8, 12
WHERE = np.array([[3, 0, 7, 11, 4], [1, 2, 3, 4, 5]])
ANGLES = np.arange(L)[:, None] * 10000.0 ** (-2 * np.arange(H // 2) / H)
COS, SIN = (f(ANGLES).astype(np.float32) for f in (np.cos, np.sin))
X = np.random.default_rng(0).normal(size=(B, T, N, H)).astype(np.float32)
CLOSE = {"rtol": PARITY, "atol": PARITY}


def of_llama(x, cos, sin):
    """transformers' tables have every column twice, and its heads come before the positions."""
    cos, sin = (torch.cat([table, table], dim=-1)[torch.tensor(WHERE)] for table in (cos, sin))
    return llama.apply_rotary_pos_emb(x.transpose(1, 2), x.transpose(1, 2), cos, sin)[0].transpose(1, 2)


def of_gptj(x, cos, sin):
    return gptj.apply_rotary_pos_emb(x, *(table[torch.tensor(WHERE)] for table in (sin, cos)))


@pytest.mark.parametrize(("style", "hf_rotate"), [("half", of_llama), ("interleaved", of_gptj)])
def test_outputs_and_gradients_are_those_of_transformers(style, hf_rotate):
    """The gradient of the tables too: they are arrays like any other."""
    tensors = [torch.tensor(x, requires_grad=True) for x in (X, COS, SIN)]
    hf_output = hf_rotate(*tensors)
    (hf_output**3).sum().backward()

    @jax.jit
    def run(*arrays):
        def loss(x, cos, sin):
            output = positions.rotary_tables(cos, sin, style=style).heads(x, WHERE)
            return jnp.sum(output**3), output

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*arrays)

    gradients, output = run(X, COS, SIN)
    np.testing.assert_allclose(output, hf_output.detach(), **CLOSE)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, rtol=GRADIENT["float32"], atol=GRADIENT["float32"])


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
def test_attention_with_given_tables_and_its_gradient(implementation):
    """Queries and keys rotated by transformers, attention of PyTorch: all five gradients."""
    key, value = np.random.default_rng(2).normal(size=(2, B, T, N, H)).astype(np.float32)
    tensors = [torch.tensor(x, requires_grad=True) for x in (X, key, value, COS, SIN)]
    q, k, v, *tables = tensors
    heads = (x.transpose(1, 2) for x in (of_llama(q, *tables), of_llama(k, *tables), v))
    expected = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2)
    torch.sin(expected).sum().backward()

    @jax.jit
    def run(*arrays):
        def loss(q, k, v, cos, sin):
            rope = positions.rotary_tables(cos, sin)
            rotated = rope.heads(q, WHERE), rope.heads(k, WHERE)
            output = attend_heads(*rotated, v, mask=masks.causal(), implementation=implementation)
            return jnp.sum(jnp.sin(output)), output

        return jax.grad(loss, argnums=(0, 1, 2, 3, 4), has_aux=True)(*arrays)

    gradients, output = run(X, key, value, COS, SIN)
    np.testing.assert_allclose(output, expected.detach(), **CLOSE)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, rtol=GRADIENT["float32"], atol=GRADIENT["float32"])


def test_a_part_of_each_head_is_rotated_and_the_dtype_stays():
    rope = positions.rotary_tables(COS[:, :2], SIN[:, :2])
    x = jnp.asarray(X, jnp.bfloat16)
    expected = positions.rotary_tables(COS[:, :2], SIN[:, :2])(X[:, :, 0, :4], WHERE)
    output = jax.jit(lambda x: rope(x[:, :, 0], WHERE))(x)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_array_equal(output[..., 4:], x[:, :, 0, 4:])
    np.testing.assert_allclose(output[..., :4].astype(np.float32), expected, atol=2 * float(jnp.finfo(x.dtype).eps))


def test_positions_outside_of_the_tables_are_nan_and_padding_is_not():
    where = np.array([0, L, -1, EMPTY, L - 1])
    output = positions.rotary_tables(COS, SIN)(X[0, :, 0], where)
    np.testing.assert_array_equal(np.isnan(output).any(axis=-1), [False, True, True, False, False])


ROPE = positions.rotary_tables(COS, SIN)


def test_layers_and_models_take_tables_where_they_take_rotary():
    """A layer, a model scanned and not, and its cache: the same numbers as with the angles computed."""
    x = np.random.default_rng(1).normal(size=(B, T, 16)).astype(np.float32)
    layers = [
        small.filled(lambda rope=rope: nn.MultiHeadAttention(2, 16, rope=rope, rngs=nnx.Rngs(0)))
        for rope in (ROPE, positions.rotary())
    ]
    fields = {"windows": (None,), "local_rope": None, "head_size": H}
    given, computed = (small.model("rotary", rope=rope, **fields) for rope in (ROPE, positions.rotary()))
    tokens = small.tokens(2, 7)

    def in_steps(model):
        first = model(tokens[:, :4], cache=model.init_cache((2,)))
        return jnp.concatenate([first.logits, model(tokens[:, 4:], cache=first.cache).logits], axis=1)

    @small.jit
    def run(layers, given, scanned, computed):
        outputs = [layer(x) for layer in layers]
        return outputs, [given(tokens).logits, scanned(tokens).logits, in_steps(scanned)], computed(tokens).logits

    (by_table, by_angle), found, expected = run(layers, given, models.scan_layers(given), computed)
    np.testing.assert_allclose(by_table, by_angle, rtol=FORWARD["float32"], atol=FORWARD["float32"])
    for logits in found:
        np.testing.assert_allclose(logits, expected, **small.CLOSE)


def test_tables_are_constants_of_a_layer_and_part_of_a_config():
    """Equal tables are one rule: nothing compiles again, no array is trained, and a config comes back from JSON."""

    def layer_of(cos):
        return nn.MultiHeadAttention(2, 16, rope=positions.rotary_tables(cos, SIN), rngs=nnx.Rngs(0))

    layer = jax.eval_shape(lambda: layer_of(COS))
    assert jax.tree.structure(layer) == jax.tree.structure(jax.eval_shape(lambda: layer_of(COS)))
    assert len(jax.tree.leaves(layer)) == len(jax.tree.leaves(layer.projections)) + len(jax.tree.leaves(layer.out))
    config = small.config("rotary", rope=ROPE)
    assert config == small.config("rotary", rope=positions.rotary_tables(COS, SIN))
    assert config != small.config("rotary", rope=positions.rotary_tables(COS, -SIN))
    assert models.config_from_json(models.config_to_json(config)) == config
    assert repr(ROPE) == "rotary_tables(float32[12,4], float32[12,4], style='half')"
    with pytest.raises(ValueError, match=r"expected known arrays to keep as constants, got traced ones"):
        jax.eval_shape(layer_of, COS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((COS, SIN[:3]), r"cos: expected tables \[L, F\] of one shape, got float32\[12,4\] and float32\[3,4\]"),
        ((COS[None], SIN[None]), r"Tables of a batch: take the rows of its positions"),
        ((COS[:0], SIN[:0]), r"cos: expected tables \[L, F\] of one shape, got float32\[0,4\]"),
        ((COS[0], SIN[0]), r"cos: expected an array \[\.\.\., L, F\]"),
        ((1.0, SIN), r"cos: expected an array \[\.\.\., L, F\], got the number 1\.0"),
        ((COS, "sin"), r"sin: expected a real float number or array, got"),
    ],
)
def test_wrong_tables_are_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        positions.rotary_tables(*arguments)


def test_a_wrong_style_and_a_small_head_are_refused():
    with pytest.raises(ValueError, match=r"style: expected \"half\" or \"interleaved\", got 'pairs'"):
        positions.rotary_tables(COS, SIN, style="pairs")
    with pytest.raises(ValueError, match=r"size: expected at most the head size 4, got 8\. .* pass cos\[:, :F\]"):
        ROPE(X[:, :, 0, :4], WHERE)


# --- The end of the tables -------------------------------------------------------------------------------------------

TABLED = small.config("rotary", rope=ROPE, windows=(None,), local_rope=None, head_size=H, context=L)


def test_generation_up_to_the_last_row():
    """Padding of prompts and caches is outside of the tables, and changes nothing."""
    by_table = small.filled(lambda: models.create(TABLED))
    by_angle = small.filled(lambda: models.create(TABLED.replace(rope=positions.rotary())))
    prompts = [list(map(int, small.tokens(1, n)[0])) for n in (5, 3)]
    found, expected = (decoding.generate(x, prompts, max_new_tokens=L - 5) for x in (by_table, by_angle))
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, **small.CLOSE)


def test_the_local_tables_count_too():
    assert TABLED.table_length == L
    assert TABLED.replace(rope=positions.rotary(), local_rope=ROPE, windows=(None, 3)).table_length == L
    assert TABLED.replace(rope=positions.rotary()).table_length is None
    assert TABLED.replace(position="none", context=L + 1).table_length is None
    assert TABLED.replace(position="learned", context=L + 1).table_length == L + 1


LLAMA = models.llama(vocab_size=19, context=L, width=2 * H, depth=1, num_heads=2, kv_heads=1).replace(rope=ROPE)
PAST_THE_END = {
    "a context": (
        lambda: TABLED.replace(context=L + 1),
        r"context: expected at most 12 positions, the rows of the rotary tables, got 13\. Make longer tables",
    ),
    "tokens": (
        lambda: jax.eval_shape(lambda: models.create(TABLED)(jnp.zeros(L + 1, int))),
        r"tokens: expected at most 12 tokens, the rows of the rotary tables, got 13\. Cut the text",
    ),
    "generation": (
        lambda: decoding.generate(models.create(TABLED), [1, 2], max_new_tokens=L, beyond_context=True),
        r"beyond_context: expected False for rotary positions of a table, which ends at 12, got True",
    ),
    "new tokens": (
        lambda: decoding.generate(models.create(TABLED), [1, 2], max_new_tokens=L - 1),
        r"max_new_tokens: expected prompt and new tokens within the model's context of 12, got 2 \+ 11\..*_tokens\.$",
    ),
    "a folder": (
        lambda: interop.save(models.create(LLAMA), "no_folder"),
        r"config: expected a model that some family of Hugging Face computes, got fields that \w+ cannot express: rope",
    ),
}


@pytest.mark.parametrize("name", PAST_THE_END)
def test_what_the_tables_do_not_have_is_refused(name, tmp_path, monkeypatch):
    """A position without a row would be NaN, and a folder of Hugging Face has a base in place of tables."""
    run, message = PAST_THE_END[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        run()
