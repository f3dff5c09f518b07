"""The shapes in public signatures are true: jaxtyping and beartype check them on real calls.

The library imports jaxtyping for type checkers only. These tests put its names into the modules, resolve every
annotation, and run each public function under the checker, which must accept good arrays and refuse wrong ones.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import typing
from pathlib import Path

import beartype
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx

import jax_attention
from jax_attention import cache, masks, mods, nn, normalizers, positions, scores
from tests.models.small import filled

MODULES = [
    importlib.import_module(module.name) for module in pkgutil.walk_packages(jax_attention.__path__, "jax_attention.")
]


def jaxtyping_names(module) -> set[str]:
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "jaxtyping"]
    return {alias.name for node in imports for alias in node.names}


@pytest.fixture(scope="module", autouse=True)
def names_in_modules():
    """The names that `if TYPE_CHECKING:` imports, set in every module for the time of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            for name in jaxtyping_names(module):
                patch.setattr(module, name, getattr(jaxtyping, name), raising=False)
        yield


def public_objects() -> dict[str, typing.Any]:
    """Public functions and classes by name."""
    members = inspect.getmembers(cache, inspect.isfunction)
    public = {f"cache.{name}": f for name, f in members if f.__module__ == cache.__name__ and not name.startswith("_")}
    for package in (jax_attention, scores, mods, masks, normalizers, positions, nn):
        short = package.__name__.removeprefix("jax_attention").lstrip(".")
        public |= {f"{short}.{name}".lstrip("."): getattr(package, name) for name in package.__all__}
    return {name: x for name, x in public.items() if inspect.isfunction(x) or inspect.isclass(x)}


PUBLIC = public_objects()
FUNCTIONS = {name for name, x in PUBLIC.items() if inspect.isfunction(x)}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_annotation_resolves(name):
    subject = PUBLIC[name]
    if inspect.isclass(subject):
        written = [f for f in vars(subject).values() if inspect.isfunction(f) and f.__code__.co_filename != "<string>"]
        functions = [subject, *written]  # generated methods of a dataclass have the annotations of its fields
    else:
        functions = [subject]
    for x in functions:
        if getattr(x, "__module__", "").startswith("jax_attention"):
            assert None not in typing.get_type_hints(x, include_extras=True).values()


def checked(name: str):
    """The function under jaxtyping and beartype; `Class.method` for methods."""
    owner, _, method = name.partition(".__")
    subject = getattr(PUBLIC[owner], f"__{method}") if method else PUBLIC[owner]
    return jaxtyping.jaxtyped(subject, typechecker=beartype.beartype)


# --- Calls that must pass --------------------------------------------------------------------------------------------


def ones(*shape: int, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.ones(shape, dtype))


def whole(*shape: int) -> jax.Array:
    return ones(*shape, dtype=jnp.int32)


def flag(*shape: int) -> jax.Array:
    return ones(*shape, dtype=bool)


B, T, S, N, K, H, E = 2, 3, 5, 4, 2, 6, 7
PLAIN = (ones(B, T, H), ones(S, H), ones(1, S, E))
HEADS = (ones(B, T, N, H), ones(B, S, K, H), ones(1, S, K, E))
CACHE = cache.create(8, K, H, E, batch=(B,))
STATE = jax_attention.FeatureState(ones(1, H, E), ones(1, H), jnp.int32(0))
SELF = lambda x: x  # noqa: E731
LAYER = filled(lambda: nn.MultiHeadAttention(N, 8, kv_heads=K, rngs=nnx.Rngs(0)))
SELF_LAYER = filled(lambda: nn.SelfAttention(8, rngs=nnx.Rngs(0)))
ATTN = filled(lambda: nn.Attn(H, K, S, E, 9, rngs=nnx.Rngs(0)))
GRU = filled(lambda: nn.GRU(H, K, rngs=nnx.Rngs(0)))

GOOD = {
    "attend": [
        (PLAIN, {}),
        ((ones(T, H), ones(S, H), ones(S, E)), {"mask": masks.causal(), "mods": (mods.soft_cap(9.0),)}),
        (PLAIN, {"query_positions": jnp.arange(T), "key_positions": jnp.zeros((B, S), jnp.int32)}),
        ((ones(T, H), ones(S, H + 1), ones(S, E)), {"score": scores.general(ones(H, H + 1))}),
        (PLAIN, {"mask": lambda q, k: k <= q, "dropout": jax_attention.Dropout(jax.random.key(0), 0.5)}),
    ],
    "attend_heads": [(HEADS, {}), (HEADS, {"query_positions": jnp.arange(T), "mask": masks.causal()})],
    "attend_step": [
        ((None, ones(B, T, H), ones(T, H), ones(1, T, E)), {"score": scores.features("relu")}),
        ((STATE, ones(B, 1, H), ones(1, H), ones(1, 1, E)), {"score": scores.features("relu")}),
    ],
    "attention_weights": [(PLAIN, {})],
    "attention_weights_heads": [(HEADS, {})],
    "attend_with_stats": [(PLAIN, {})],
    "attend_with_stats_heads": [(HEADS, {})],
    "explain": [(PLAIN, {}), (HEADS, {"heads": True})],
    "dot_product_attention": [
        ((ones(B, T, N, H), ones(B, S, K, H), ones(B, S, K, E)), {"mask": flag(B, 1, 1, S), "is_causal": True}),
        ((ones(T, N, H), ones(S, K, H), ones(S, K, E)), {"bias": ones(N, T, S), "local_window_size": (1, 0)}),
        ((ones(B, T, N, H), ones(B, S, K, H), ones(B, S, K, E)), {"key_value_seq_lengths": whole(B), "scale": 0.5}),
    ],
    "flax_attention_fn": [((), {"mask": masks.causal(), "normalize": normalizers.sparsemax()})],
    "merge_partials": [(((ones(B, T, E), ones(B, T)), (ones(1, E), ones(T))), {})],
    "scores.dot": [((), {})],
    "scores.scaled_dot": [((), {}), ((2.0,), {}), ((ones(N),), {})],
    "scores.cosine": [((ones(N),), {})],
    "scores.l2": [((ones(B, N),), {}), ((0.5,), {})],
    "scores.general": [((ones(H, E),), {}), ((ones(N, H, E),), {})],
    "scores.concat": [((ones(H), ones(E)), {"bias": 0.5}), ((ones(N, H), ones(N, E), ones(N)), {})],
    "scores.additive": [((ones(H, 9), ones(E, 9)), {}), ((ones(N, H, 9), ones(N, E, 9), ones(9), ones(1, 9)), {})],
    "scores.location": [((ones(H + E, S), ones(S)), {}), ((ones(N, H, S),), {})],
    "scores.features": [(("relu",), {}), ((SELF,), {})],
    "scores.random_features": [((ones(9, H),), {}), ((ones(N, 9, H),), {})],
    "scores.as_score": [((lambda q, k: q,), {}), ((scores.dot(),), {})],
    "mods.bias": [((ones(T, S),), {}), ((ones(N, 1, S),), {})],
    "mods.alibi": [((0.5,), {}), ((ones(N),), {})],
    "mods.relative": [((ones(N, 32),), {"bidirectional": False})],
    "mods.soft_cap": [((50.0,), {}), ((ones(N),), {})],
    "mods.temperature": [((2.0,), {})],
    "mods.as_mod": [((lambda z, q, k: z,), {})],
    "masks.causal": [((), {}), ((2,), {})],
    "masks.sliding_window": [((3,), {}), ((None, None), {})],
    "masks.prefix": [((3,), {}), ((whole(B, 1),), {})],
    "masks.lengths": [((3,), {}), ((whole(B), whole(B)), {})],
    "masks.segments": [((whole(T),), {}), ((whole(B, T), whole(B, S)), {})],
    "masks.dilated": [((2,), {})],
    "masks.chunked": [((2,), {})],
    "masks.dense": [((flag(T, S),), {}), ((flag(B, 1, 1, S),), {})],
    "masks.block_sparse": [((flag(2, 3), 4), {})],
    "masks.as_mask": [((lambda q, k: q,), {})],
    "masks.from_torch_sdpa": [((flag(T, S),), {}), ((ones(B, N, T, S),), {})],
    "masks.from_torch_mha": [((flag(T, S), flag(B, S)), {}), ((ones(B * N, T, S),), {"num_heads": N})],
    "masks.from_huggingface": [((whole(B, S),), {}), ((ones(B, 1, T, S),), {}), ((flag(B, 1, T, S),), {})],
    "masks.from_huggingface_window": [((4,), {})],
    "masks.from_flash_window": [(((3, -1), 8, 8), {"causal": True})],
    "masks.from_jax_nn_window": [((3,), {}), (((3, 0),), {})],
    "masks.fully_masked_rows": [
        ((masks.causal(), T, S), {}),
        ((masks.causal(), T, S), {"query_positions": whole(B, T), "key_positions": jnp.arange(S)}),
    ],
    "normalizers.softmax": [((), {}), ((ones(N),), {}), ((), {"plus_one": True})],
    "normalizers.sigmoid": [((-2.0,), {}), ((ones(N),), {})],
    "normalizers.relu": [((2,), {"mean": False})],
    "normalizers.linear": [((), {"mean": True})],
    "normalizers.proportional": [((), {}), ((), {"eps": 1e-6})],
    "normalizers.sparsemax": [((), {})],
    "normalizers.entmax15": [((), {})],
    "normalizers.uniform": [((), {})],
    "normalizers.hard": [((), {})],
    "normalizers.as_normalizer": [((lambda z, where: z,), {})],
    "positions.sinusoidal": [((jnp.arange(T), 8), {}), ((whole(B, T), 8), {"style": "half", "dtype": jnp.bfloat16})],
    "positions.learned": [((ones(9, 4), whole(B, T)), {})],
    "positions.rotary": [((), {"style": "interleaved", "scaling": positions.linear_scaling(2.0)})],
    "positions.rotary_tables": [((ones(T, 2), ones(T, 2)), {})],
    "positions.Rotary.__call__": [((positions.rotary(), ones(B, T, H), jnp.arange(T)), {})],
    "positions.alibi_slopes": [((6,), {})],
    "positions.t5_buckets": [((whole(T, S),), {}), ((3,), {"bidirectional": False})],
    "positions.linear_scaling": [((2.0,), {})],
    "positions.dynamic_scaling": [((2.0, 2048), {})],
    "positions.llama3_scaling": [((), {"factor": 32.0})],
    "positions.yarn_scaling": [((4.0, 4096), {"attention_factor": 1.0})],
    "cache.create": [((8, K, H), {}), ((8, K, H, E), {"batch": (B,), "ring": True})],
    "cache.next_positions": [((CACHE, 3), {})],
    "cache.append": [
        ((CACHE, ones(B, T, K, H), ones(B, T, K, E)), {}),
        ((CACHE, ones(B, T, K, H), ones(B, T, K, E), jnp.arange(T)), {}),
        ((CACHE, ones(B, T, K, H), ones(B, T, K, E), whole(B, T)), {}),
    ],
    "cache.filled": [((), {})],
    "nn.MultiHeadAttention.__call__": [((LAYER, ones(B, T, 8)), {}), ((LAYER, ones(T, 8), ones(S, 8)), {})],
    "nn.SelfAttention.__call__": [((SELF_LAYER, ones(B, T, 8)), {})],
    "nn.Attn.__call__": [((ATTN, ones(B, T, H), ones(B, T, K), ones(B, S, E)), {})],
    "nn.GRU.__call__": [
        ((GRU, ones(B, T, H)), {}),
        ((GRU, ones(B, T, H), ones(B, 1, K)), {"lengths": whole(B)}),
    ],
    "nn.lora": [((LAYER, 2, jax.random.key(0)), {}), ((LAYER, 2, 0), {"targets": "", "alpha": 1.0})],
    "nn.apply_adapters": [((LAYER, nn.lora(LAYER, 2, 0)), {})],
    "Dropout.__call__": [
        ((jax_attention.Dropout(jax.random.key(0), 0.5), ones(B, T, S), whole(T, 1), whole(1, S)), {}),
    ],
}


RUN = {"attention_weights", "cache.append", "masks.from_torch_sdpa", "nn.SelfAttention.__call__", "positions.learned"}
"""Functions whose calls also run in `make test`; the shapes of the others are checked while JAX traces them."""
assert GOOD.keys() >= RUN, "a renamed function would no longer run in `make test`"


@pytest.mark.parametrize("name", GOOD)
def test_good_calls_pass(name):
    function = checked(name)

    def call():
        for args, options in GOOD[name]:
            assert function(*args, **options) is not None

    call() if name in RUN else jax.eval_shape(call)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(GOOD.keys() - RUN))
def test_good_calls_pass_when_they_run(name):
    function = checked(name)
    for args, options in GOOD[name]:
        assert function(*args, **options) is not None


def test_every_public_function_is_called():
    assert FUNCTIONS - GOOD.keys() == set()


# --- Calls that must be refused by the annotation alone --------------------------------------------------------------

BAD = {
    "attend": [
        ((ones(T, H), ones(S, H), ones(S + 1, E)), {}),
        ((ones(2, T, H), ones(3, S, H), ones(S, E)), {}),
        ((whole(T, H), ones(S, H), ones(S, E)), {}),
        ((*PLAIN,), {"query_positions": jnp.arange(T + 1)}),
        ((*PLAIN,), {"key_positions": jnp.ones(S)}),
    ],
    "attend_heads": [((ones(T, N, H), ones(S, K, H), ones(S, 1, E)), {}), ((ones(T, H), ones(S, H), ones(S, E)), {})],
    "attention_weights": [((ones(T, H), ones(H), ones(S, E)), {})],
    "dot_product_attention": [((*HEADS,), {"mask": ones(B, 1, T, S)}), ((*HEADS,), {"bias": ones(N, S, T)})],
    "merge_partials": [(((ones(T, E), ones(T + 1)),), {})],
    "scores.additive": [((ones(H, 8), ones(H, 9)), {}), ((ones(H, 8), ones(H, 8), ones(9)), {})],
    "scores.location": [((ones(H, S), ones(S + 1)), {})],
    "scores.general": [((ones(H),), {})],
    "scores.random_features": [((ones(H),), {}), ((whole(9, H),), {})],
    "attend_step": [((None, ones(T, H), ones(T + 1, H), ones(T + 1, E)), {"score": scores.dot()})],
    "mods.bias": [((flag(T, S),), {}), ((ones(S),), {})],
    "masks.dense": [((ones(T, S),), {}), ((flag(S),), {})],
    "masks.lengths": [((ones(B),), {})],
    "masks.causal": [((0.5,), {})],
    "normalizers.softmax": [((whole(N),), {})],
    "positions.learned": [((ones(9), whole(T)), {}), ((ones(9, 4), ones(T)), {})],
    "positions.rotary_tables": [((ones(T, 2), ones(2)), {})],
    "positions.Rotary.__call__": [((positions.rotary(), ones(B, T, H), jnp.arange(T + 1)), {})],
    "nn.MultiHeadAttention.__call__": [((LAYER, ones(8)), {}), ((LAYER, ones(T, 8), ones(S, 8), ones(T, 8)), {})],
    "cache.append": [
        ((CACHE, ones(B, T, K, H), ones(B, T + 1, K, E)), {}),
        ((CACHE, ones(B, T, K, H), ones(B, T, K, E), jnp.arange(T + 1)), {}),
    ],
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_arrays_are_refused(name):
    function = checked(name)
    for args, options in BAD[name]:
        with pytest.raises(jaxtyping.TypeCheckError):
            function(*args, **options)
