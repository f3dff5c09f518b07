"""What `repr` and `print` show of models, caches, results and rules: what they are made of, never their numbers.

pytorch#90452 (1,411 lines for t5-large), flax#4632 (errors that cannot be read among the parameters).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import treescope
from flax import nnx

from jax_attention import data, masks, models, mods, nn, normalizers, positions, scores, training
from jax_attention.cache import KVCache
from jax_attention.core.short_repr import describe
from jax_attention.models.blocks import Blocks
from jax_attention.nn.short_repr import ShortRepr
from tests.house.sources import LIBRARY, module_name

MODULES = [importlib.import_module(name) for name in map(module_name, LIBRARY) if not name.endswith("__main__")]
CLASSES = {
    x for module in MODULES for x in vars(module).values() if isinstance(x, type) and x.__module__ == module.__name__
}
CONFIG = models.LMConfig(vocab_size=11, context=8, width=8, depth=2, num_heads=2)
LONG = np.linspace(0, 1, 999, dtype=np.float32)
"""As many numbers as NumPy prints without an ellipsis."""


@functools.cache
def small_model() -> models.TransformerLM:
    return models.create(CONFIG, 0)


def test_every_module_prints_short():
    modules = {x for x in CLASSES if issubclass(x, nnx.Module)}
    assert len(modules) > 25
    assert [x for x in modules if not issubclass(x, ShortRepr)] == []


def named_tuples_with_arrays() -> list:
    """Every named tuple of the library whose fields may be arrays, full of long ones."""
    tuples = [x for x in CLASSES if issubclass(x, tuple) and hasattr(x, "_fields")]
    return [x(*[LONG] * len(x._fields)) for x in tuples if re.search("Array|ndarray", str(x.__annotations__))]


def structs() -> list:
    """Every struct of the library, with long arrays in all fields that may hold arrays."""
    made = []
    for cls in CLASSES:
        if not dataclasses.is_dataclass(cls) or inspect.isabstract(cls):
            continue
        x = object.__new__(cls)
        for field in dataclasses.fields(cls):
            is_array = field.metadata and not field.metadata.get("part")
            object.__setattr__(x, field.name, LONG if is_array else () if field.default == () else 1)
        made += [] if jax.tree_util.all_leaves([x]) else [x]
    return made


def test_named_tuples_and_structs_print_arrays_by_dtype_and_shape():
    made = named_tuples_with_arrays() + structs()
    assert len(made) > 60
    for x in made:
        text = repr(x)
        assert len(text) < 400, text
        assert ("float32[999]" in text) == any(leaf is LONG for leaf in jax.tree.leaves(x)), text


def test_a_model_is_its_config_and_the_number_of_its_parameters():
    model = small_model()
    count = sum(x.size for x in jax.tree.leaves(model))
    config = "LMConfig(vocab_size=11, context=8, width=8, depth=2, num_heads=2)"
    assert repr(CONFIG) == config
    assert repr(model) == str(model) == f"TransformerLM(config={config}, {count:,} parameters)"
    block = model.blocks.rest[0]
    assert repr(Blocks([], [block] * 48)) == f"Blocks(scanned=(), rest=({block!r},) * 48, 872 parameters)"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda rngs: nn.MultiHeadAttention(4, 64, mask=masks.causal(), rngs=rngs),
            "MultiHeadAttention(num_heads=4, size=64, kv_heads=4, head_size=16, mask=causal(), 16,640 parameters)",
        ),
        (
            lambda rngs: nn.MultiHeadAttention(2, 8, kv_heads=1, packed=True, rope=positions.rotary(), rngs=rngs),
            "MultiHeadAttention(num_heads=2, size=8, kv_heads=1, head_size=4, rope=rotary(), 216 parameters)",
        ),
        (
            lambda rngs: nn.SelfAttention(3, 4, mods=(mods.soft_cap(5.0),), rngs=rngs),
            "SelfAttention(size=3, head_size=4, mods=(soft_cap(cap=5.0),), 48 parameters)",
        ),
        (lambda rngs: nn.FeedForward(3, 4, rngs=rngs), "FeedForward(size=3, hidden_size=4, 31 parameters)"),
        (
            lambda rngs: nn.Linear(3, 4, use_bias=False, dtype=jnp.bfloat16, rngs=rngs),
            "Linear(in_features=3, out_features=4, use_bias=False, dtype=bfloat16, 12 parameters)",
        ),
        (lambda rngs: nn.GRU(3, 4, rngs=rngs), "GRU(input_size=3, hidden_size=4, 108 parameters)"),
        (
            lambda rngs: nn.Additive(3, 5, 4, use_bias=False, rngs=rngs),
            "Additive(key_kernel=float32[5,4], query_kernel=float32[3,4], vector=float32[4], 36 parameters)",
        ),
        (
            lambda rngs: nn.Attn(2, 3, 4, 5, 6, rngs=rngs),
            "Attn(score=Location(bias=float32[4], kernel=float32[5,4], 24 parameters), sizes=(2, 3, 4, 5), "
            "72 parameters)",
        ),
        (
            lambda rngs: nn.LearnedPart(mods.alibi(positions.alibi_slopes(4))),
            "LearnedPart(value=alibi(slopes=float32[4]), 4 parameters)",
        ),
        (
            lambda rngs: nn.SelfAttention(
                2, normalize=nn.LearnedPart(normalizers.softmax(sinks=jnp.ones(1))), rngs=rngs
            ),
            "SelfAttention(size=2, head_size=2, normalize=LearnedPart(value=softmax(sinks=float32[1]), 1 parameter), "
            "17 parameters)",
        ),
    ],
)
def test_a_module_is_what_its_constructor_was_told(make, expected):
    assert repr(make(nnx.Rngs(0))) == expected


def test_modules_are_short_inside_of_a_users_module():
    class User(nnx.Module):
        def __init__(self):
            self.model, self.layers = small_model(), nnx.List([nn.Linear(2, 2, rngs=nnx.Rngs(0))])

    text = repr(User())
    assert f"model={small_model()!r}" in text
    assert "Linear(in_features=2, out_features=2, 6 parameters)" in text
    assert text.count("\n") < 8


def test_results_and_caches():
    model = small_model()
    output = jax.jit(lambda m, x, c: m(x, cache=c, capture=models.Capture(weights=(0,))))(
        model, jnp.zeros((2, 5), int), model.init_cache((2,), 8)
    )
    cache = (
        "LMCache(scanned=(), rest=(KVCache(key=float32[2,8,2,4], value=float32[2,8,2,4], positions=int32[2,8], "
        "length=5),) * 2)"
    )
    captured = "CaptureResult(weights={0: float32[2,2,5,8]}, hidden={}, cross={})"
    assert repr(output) == f"LMOutput(logits=float32[2,5,11], cache={cache}, captured={captured})"
    state = training.TrainState(model, optax.adam(1e-3).init(model), jnp.int32(3), jax.random.key(0))
    text = repr(state)
    assert text.startswith(f"TrainState(model={model!r}, optimizer_state=(ScaleByAdamState(count=0, mu={model!r}")
    assert text.endswith("step=3, rng=key<fry>[])")


def test_no_repr_shows_an_address_or_a_tree_definition():
    learned = models.create(CONFIG.replace(mods=(mods.alibi(jnp.ones(2)),), train_rule=True, depth=1), 0)
    partial = functools.partial(jnp.where, True)
    for x in (
        learned,
        learned.blocks.rest[0].attention,
        models.pure_model(CONFIG),
        scores.features(partial),
        masks.as_mask(functools.partial(lambda a, q, k: q > k, 1)) & masks.causal(),
        optax.adam(1e-3),
    ):
        assert not re.search("0x[0-9a-f]{6}|PyTreeDef", describe(x)), describe(x)


def test_repr_never_fails_and_never_needs_the_numbers():
    model, texts = small_model(), []
    learned = nn.LearnedPart(mods.alibi(jnp.ones(4)))
    for change in (lambda x: "decay", lambda x: None, lambda x: x.sharding, jax.typeof):
        changed = [jax.tree.map(change, x) for x in (model, learned, model.init_cache((), 4))]
        texts += map(repr, changed)
    assert "LearnedPart(value=alibi(slopes='decay'), 0 parameters)" in texts
    jax.jit(lambda *arguments: texts.append(repr(arguments)))(model, learned, model.init_cache((), 4))
    assert "length=int32[]" in texts[-1], "a tracer has no number"
    cache = model.init_cache((), 4)
    jax.tree.map(lambda x: x.delete(), cache)  # what donation does
    assert "length=int32[]" in repr(cache)
    assert all(len(text) < 600 for text in texts)


def test_numbers_of_zero_rank_are_shown():
    cache = KVCache(*[np.ones((3, 2, 4), np.float32)] * 2, np.arange(3), jnp.int32(2), ring=True)
    assert repr(cache) == "KVCache(key=float32[3,2,4], value=float32[3,2,4], positions=int64[3], length=2, ring=True)"
    assert describe(training.Losses(jnp.float32(0.5), jnp.bfloat16(1), np.float64(2))) == (
        "Losses(objective=0.5, nats=1.0, weight=2.0)"
    )
    assert (
        describe({n: LONG for n in range(48)})
        == "{0: float32[999], 1: float32[999], ... 48 in all ..., 47: float32[999]}"
    )


@pytest.mark.filterwarnings("ignore:The chararray class is deprecated:DeprecationWarning")  # in treescope itself
def test_the_trees_of_treescope_still_have_every_array():
    """`nnx.display` in a notebook shows these trees; a short repr in their place would hide the model."""
    model = small_model()
    assert treescope.render_to_text(model).count("Param(") == len(jax.tree.leaves(model))


def test_a_tokenizer_does_not_print_its_vocabulary():
    words = data.Words(tuple(f"word{i}" for i in range(5000)))
    characters = data.Characters("".join(map(chr, range(0x4E00, 0x4E00 + 2800))))
    assert all(len(repr(x)) < 200 for x in (words, characters))
    assert repr(data.Characters("abc", unknown="c")) == "Characters(vocabulary='abc', unknown='c')"
