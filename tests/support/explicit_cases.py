"""Calls on a mesh with explicit axes, against the same calls on one device. Runs in a process with eight devices:

    python -m tests.support.explicit_cases NAME ...     prints {name: message of the error, or ""} as JSON

Batch dimensions are sharded over the mesh axis "batch", heads over "heads", parameters as each case says.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import jax_attention
from jax_attention import (
    Blockwise,
    Dropout,
    LinearAttention,
    attend,
    attend_heads,
    attend_step,
    cache,
    data,
    decoding,
    masks,
    models,
    mods,
    nn,
    normalizers,
    positions,
    scores,
    training,
)
from tests.models import small, small_rnn
from tests.models.pairs import pair
from tests.support import cases
from tests.support.arrays import check_close, normal, normal_arrays
from tests.support.exporting import outputs_and_gradients
from tests.support.tolerances import GRADIENT

MESH = (4, 2)
"""Devices along the axes "batch" and "heads"."""
IMPLEMENTATIONS = {"reference": "reference", "blockwise": Blockwise(tile=(2, 3)), "chosen": None}
LINEAR_RULE = {"score": scores.features("relu"), "normalize": normalizers.proportional()}
BATCH, BY_HEAD = PartitionSpec("batch"), PartitionSpec("batch", None, "heads")


class Call(NamedTuple):
    """A function, its arguments, a `PartitionSpec` (or a function of path and array) for each; the differentiated ones.

    transform: how the function is compiled.
    """

    function: Callable
    arguments: tuple
    specs: tuple
    argnums: tuple[int, ...]
    transform: Callable = jax.jit


def run(call: Call) -> None:
    """Outputs and gradients under the mesh equal those of one device."""
    function = outputs_and_gradients(call.function, call.argnums) if call.argnums else call.function
    function = call.transform(function)
    expected = function(*call.arguments)
    mesh = jax.make_mesh(MESH, ("batch", "heads"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        arguments = [_place(mesh, spec, x) for spec, x in zip(call.specs, call.arguments, strict=True)]
        actual = function(*arguments)
    assert any(len(x.sharding.device_set) == 8 for x in jax.tree.leaves(actual))
    check_close(actual, expected, GRADIENT["float32"])


def _place(mesh: Any, spec: Any, tree: Any) -> Any:
    """The arrays of a tree on the mesh; `spec` is one for all or a function of path and array."""
    choose = spec if callable(spec) else lambda path, x: spec
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*choose(path, x)[: np.ndim(x)]))), tree
    )


def part_case(part: str, case: cases.Case, implementation: str) -> Call:
    """A catalogue entry whose arrays have the batch dimensions of the operands, all of them sharded."""
    draw = cases.Draw(np.random.default_rng(0), cases.SHAPES["wide"], (4, 2))
    choice, _ = case.build(draw)
    operands = tuple(x.jax for x in cases.operands(draw, choice if part == "score" else None))
    has_arrays = hasattr(choice, "part")

    def function(choice_: Any, *operands: jax.Array) -> jax.Array:
        rule = cases.rule_arguments(part, choice_ if has_arrays else choice)
        return attend(*operands, **rule, implementation=IMPLEMENTATIONS[implementation])

    spec = PartitionSpec("batch", "heads")
    return Call(function, (choice if has_arrays else None, *operands), (spec,) * 4, (1, 2, 3))


def chunks_case() -> Call:
    """A loss whose logits are more than exist at once."""
    hidden, head = normal_arrays(0, (4, 6, 5), (5, 7))

    def loss(hidden: jax.Array, head: jax.Array) -> jax.Array:
        targets = jnp.zeros_like(hidden[..., 0], jnp.int32)
        losses = training.cross_entropy(lambda x: x @ head, hidden, targets, logits_at_once=20)
        return losses.objective / losses.weight

    return Call(loss, (hidden, head), (BATCH, PartitionSpec()), (0, 1))


def heads_case(entry: str, groups: int = 2, **options: Any) -> Call:
    """Attention of four query heads, and key heads in groups."""
    q, k, v = normal_arrays(0, (4, 6, 4, 4), (4, 6, 4 // groups, 4), (4, 6, 4 // groups, 3))
    spec = BATCH if groups == 4 else BY_HEAD
    function = partial(getattr(jax_attention, entry), **options)
    return Call(function, (q, k, v), (BY_HEAD, spec, spec), (0, 1, 2))


def everything(implementation: Any, key: jax.Array) -> Callable:
    """Attention with slopes, sinks, lengths and dropout."""

    def function(q: jax.Array, k: jax.Array, v: jax.Array, slopes: jax.Array, sinks: jax.Array, lengths: Any) -> Any:
        return attend_heads(
            q,
            k,
            v,
            mods=(mods.alibi(slopes), mods.soft_cap(3.0)),
            mask=masks.causal() & masks.lengths(lengths[:, None]),
            normalize=normalizers.softmax(sinks),
            dropout=Dropout(key, 0.3),
            implementation=implementation,
        )

    return function


def everything_case(implementation: str) -> Call:
    q, k, v = normal_arrays(0, (4, 6, 4, 4), (4, 6, 2, 4), (4, 6, 2, 3))
    arguments = (q, k, v, positions.alibi_slopes(4), normal(1, 4, dtype="float32"), jnp.array([6, 3, 0, 1]))
    specs = (BY_HEAD,) * 3 + (PartitionSpec("heads"),) * 2 + (BATCH,)
    return Call(everything(IMPLEMENTATIONS[implementation], jax.random.key(2)), arguments, specs, (0, 1, 2, 3, 4))


def steps(x: jax.Array) -> Any:
    """Two calls of recurrent linear attention."""
    first, state = attend_step(None, x, x, x, **LINEAR_RULE)
    return first, attend_step(state, x, x, x, **LINEAR_RULE)[0]


def replicated(path: Any, x: Any) -> PartitionSpec:
    return PartitionSpec()


def by_head(path: Any, x: Any) -> PartitionSpec:
    """Projections to the heads are sharded by column, the projection from the heads by row."""
    names = [getattr(entry, "key", getattr(entry, "name", None)) for entry in path]
    if "out" in names:
        return PartitionSpec("heads") if "kernel" in names else PartitionSpec()
    return PartitionSpec(None, "heads") if "kernel" in names else PartitionSpec("heads")


def by_head_of_model(path: Any, x: Any) -> PartitionSpec:
    """Attention by head, everything else on every device."""
    names = [getattr(entry, "key", getattr(entry, "name", None)) for entry in path]
    return by_head(path, x) if "attention" in names else PartitionSpec()


D = 16


def layer_case(layer: Any, call: Callable, spec: Any = replicated) -> Call:
    x = normal(0, 4, 6, D, dtype="float32")
    return Call(call, (layer, x), (spec, BATCH), (0, 1))


def model_case(model: Any, call: Callable, spec: Any = replicated) -> Call:
    return Call(call, (model, small.tokens(4, 6)), (spec, BATCH), (0,))


def decoding_case(call: Callable) -> Call:
    """Tokens, by programs that decoding compiles itself."""
    return model_case(small.model("rotary"), call)._replace(argnums=(), transform=lambda function: function)


def loss(model: Any, x: jax.Array) -> jax.Array:
    batch = data.Batch(x[:, :-1], x[:, 1:], jnp.ones_like(x[:, 1:], "float32"))
    losses = training.language_model_loss(model, batch)
    return losses.objective / losses.weight


def train(model: Any, x: jax.Array, accumulate: int = 1) -> Any:
    """One step of training: parameters and metrics."""
    optimizer = optax.sgd(0.1)
    batch = data.Batch(x[:, :-1], x[:, 1:], jnp.ones_like(x[:, 1:], "float32"))
    state = training.init_state(model, optimizer, rng=jax.random.key(0))
    state, metrics = training.make_train_step(optimizer, accumulate=accumulate)(state, batch)
    return state.model, metrics


def decode(model: Any, x: jax.Array) -> Any:
    first = model(x[:, :4], cache=model.init_cache((4,)))
    return first.logits, model(x[:, 4:], cache=first.cache).logits


def heads_layer(**options: Any) -> nn.MultiHeadAttention:
    return nn.MultiHeadAttention(4, D, mask=masks.causal(), rngs=nnx.Rngs(0), **options)


def layer_step(layer: Any, x: jax.Array) -> Any:
    first, kept = layer.step(x[:, :4], cache.create(8, 2, 4, batch=(4,)))
    return first, layer.step(x[:, 4:], kept)


def ring_step(layer: Any, x: jax.Array) -> Any:
    first, kept = layer.step(x[:, :4], cache.create(6, 4, 4, batch=(4,), ring=True))
    return first, layer.step(x[:, 4:], kept)


def module(make: Callable) -> Any:
    return small.filled(lambda: make(rngs=nnx.Rngs(0)))


RULES = {
    "reference": {"implementation": "reference"},
    "blockwise": {"implementation": Blockwise(tile=(2, 3))},
    "linear_attention": {"implementation": LinearAttention(chunk=4), **LINEAR_RULE},
}
CASES: dict[str, Callable[[], Call]] = {
    **{
        f"{part}-{case.name}-{name}": partial(part_case, part, case, name)
        for part, parts in cases.PARTS.items()
        for case in parts
        for name in ("reference", "blockwise")
    },
    **{
        f"{entry}-{rule}": partial(heads_case, entry, mask=masks.causal(), **options)
        for entry in ("attend_heads", "attention_weights_heads", "attend_with_stats_heads")
        for rule, options in RULES.items()
        if entry == "attend_heads" or rule != "linear_attention"
    },
    "attend_heads-linear_attention, all keys": partial(heads_case, "attend_heads", **RULES["linear_attention"]),
    "linear_attention, logarithms": lambda: heads_case(
        "attend_heads", **RULES["linear_attention"] | {"score": scores.features("hedgehog")}, mask=masks.causal()
    ),
    **{f"one key head-{rule}": partial(heads_case, "attend_heads", groups=4, **x) for rule, x in RULES.items()},
    "attend_heads, whole keys": lambda: heads_case("attend_heads")._replace(
        specs=(BY_HEAD, PartitionSpec(), PartitionSpec())
    ),
    "attend_heads, whole queries": lambda: heads_case("attend_heads", mask=masks.causal())._replace(
        specs=(PartitionSpec(), BY_HEAD, BATCH)
    ),
    "cross_entropy in chunks": chunks_case,
    "dot_product_attention": partial(heads_case, "dot_product_attention", is_causal=True),
    **{f"everything-{name}": partial(everything_case, name) for name in IMPLEMENTATIONS},
    "attend_heads, not compiled": lambda: heads_case("attend_heads", mask=masks.causal())._replace(
        transform=lambda function: function
    ),
    "attend_step": lambda: Call(
        steps, (normal(0, 4, 2, 6, 4, dtype="float32"),), (PartitionSpec("batch", "heads"),), (0,)
    ),
    "MultiHeadAttention": lambda: layer_case(heads_layer(rope=positions.rotary(), kv_heads=2), lambda m, x: m(x)),
    "MultiHeadAttention(by head)": lambda: layer_case(heads_layer(kv_heads=2), lambda m, x: m(x), by_head),
    "MultiHeadAttention(packed)": lambda: layer_case(heads_layer(packed=True), lambda m, x: m(x)),
    "MultiHeadAttention(bias_kv)": lambda: layer_case(
        nn.MultiHeadAttention(4, D, bias_kv=True, rngs=nnx.Rngs(0)), lambda m, x: m(x)
    ),
    "MultiHeadAttention.step": lambda: layer_case(heads_layer(kv_heads=2, rope=positions.rotary()), layer_step),
    "MultiHeadAttention.step(ring)": lambda: layer_case(
        nn.MultiHeadAttention(4, D, mask=masks.sliding_window(3), rngs=nnx.Rngs(0)), ring_step
    ),
    "SelfAttention": lambda: layer_case(nn.SelfAttention(D, rngs=nnx.Rngs(0)), lambda m, x: m(x)),
    "MultiHeadAttention(two batch dimensions)": lambda: Call(
        lambda m, x: m(x),
        (heads_layer(), normal(0, 2, 4, 6, D, dtype="float32")),
        (replicated, PartitionSpec(None, "batch")),
        (0, 1),
    ),
    "FeedForward(rows)": lambda: Call(
        lambda m, x: m(x),
        (nn.FeedForward(D, 8, rngs=nnx.Rngs(0)), normal(0, 8, D, dtype="float32")),
        (replicated, BATCH),
        (0, 1),
    ),
    "FeedForward": lambda: layer_case(nn.FeedForward(D, 8, activation="swiglu", rngs=nnx.Rngs(0)), lambda m, x: m(x)),
    "GRU": lambda: layer_case(nn.GRU(D, 5, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0)), lambda m, x: m(x)),
    "LSTM": lambda: layer_case(nn.LSTM(D, 5, rngs=nnx.Rngs(0)), lambda m, x: m(x, lengths=jnp.full(x.shape[:-2], 3))),
    "Attn": lambda: layer_case(
        nn.Attn(D, D, None, D, D, score=nn.Additive(D, D, 5, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0)),
        lambda m, x: (m(x, x, x), m.weights(x, x, x)),
    ),
    **{
        f"TransformerLM({scheme})": lambda scheme=scheme: model_case(small.model(scheme), lambda m, x: m(x).logits)
        for scheme in small.SCHEMES
    },
    "loss": lambda: model_case(small.model("learned"), loss),
    "loss(scan)": lambda: model_case(small.model(scan=True), loss),
    "loss(remat)": lambda: model_case(small.model("t5", remat="full"), loss),
    "train": lambda: model_case(small.model("alibi"), train)._replace(argnums=()),
    "train(accumulate)": lambda: model_case(small.model("alibi"), partial(train, accumulate=2))._replace(argnums=()),
    "loss(by head)": lambda: model_case(small.model("none", use_bias=False), loss, by_head_of_model),
    "generate": lambda: decoding_case(lambda m, x: decoding.generate(m, x, max_new_tokens=3).tokens),
    "generate(sampled)": lambda: decoding_case(
        lambda m, x: (
            decoding.generate(
                m, x, max_new_tokens=3, sampler=decoding.top_p(0.9), rng=jax.random.key(0), num_samples=2
            ).tokens
        )
    ),
    "beam_search": lambda: decoding_case(lambda m, x: decoding.beam_search(m, x, max_new_tokens=3, num_beams=3).tokens),
    "decode": lambda: model_case(small.model("learned"), decode),
    "decode(scan)": lambda: model_case(small.model(scan=True), decode),
    "TransformerLM(padding, segments)": lambda: model_case(
        small.model(), lambda m, x: m(x, positions=jnp.where(x == 0, cache.EMPTY, x), segment_ids=x // 5).logits
    ),
    "TransformerLM(dropout, capture)": lambda: model_case(
        small.model("alibi", dropout=0.2, attention_dropout=0.2),
        lambda m, x: m(x, rng=jax.random.key(1), capture=models.Capture(weights="all", hidden="all")),
    ),
    "Classifier": lambda: model_case(
        module(partial(models.Classifier, small.config("learned", mask=None), 3)), lambda m, x: m(x).logits
    ),
    "PatchEncoder": lambda: Call(
        lambda m, x: m(x),
        (
            module(partial(models.PatchEncoder, small.config("learned", mask=None), image=(4, 4, 1), patch=(2, 2))),
            normal(0, 4, 4, 4, 1, dtype="float32"),
        ),
        (replicated, BATCH),
        (0, 1),
    ),
    "EncoderDecoder": lambda: model_case(pair("post-norm, learned"), lambda m, x: m(x, x).logits),
    "EncoderDecoder(t5)": lambda: model_case(pair("t5, another rule, groups"), lambda m, x: m(x, x).logits),
    "RNNSeq2Seq": lambda: model_case(small_rnn.seq2seq("additive"), lambda m, x: m(x, x % 7).logits),
}


def main(names: list[str]) -> None:
    """Run the cases, and print the error of each."""
    assert len(jax.devices()) == 8
    errors = {}
    for name in names or CASES:
        try:
            run(CASES[name]())
            errors[name] = ""
        except Exception as error:  # the test shows it
            errors[name] = f"{type(error).__name__}: {error}\n" + "".join(traceback.format_tb(error.__traceback__)[-4:])
        print(name, "ok" if not errors[name] else errors[name][:600], file=sys.stderr, flush=True)
    print(json.dumps(errors))


if __name__ == "__main__":
    main(sys.argv[1:])
