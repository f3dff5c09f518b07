"""Recurrent encoder–decoders: against PyTorch, padding, batches, what is attended to, derivatives, generation."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

from jax_attention import decoding, models
from jax_attention.cache import EMPTY
from tests.models import small
from tests.models.small_rnn import RIGHT, SCORES, SOURCE, D, H, T, config, seq2seq, target
from tests.support.arrays import difference
from tests.support.tiers import slow, slow_except


@pytest.mark.parametrize(
    ("score", "num_layers"), [("additive", 1), *(pytest.param(score, 2, marks=pytest.mark.slow) for score in SCORES)]
)
def test_leading_axes_and_padding_change_nothing(score, num_layers):
    """Every row alone is the row in the batch; behind a source anything may stand, even what gives NaN."""
    left = np.array([[0, 1, 2, 3, 4], [EMPTY, EMPTY, 0, 1, 2]])
    turned = np.stack([SOURCE[0], np.roll(SOURCE[1], 2)])
    written = target(2, T)

    @small.jit
    def run(model):
        return (
            model(SOURCE, written).logits,
            model(SOURCE[0], written[0]).logits,
            model(SOURCE[1, :3], written[1]).logits,
            model(SOURCE[None], written[None]).logits,
            model(jnp.where(RIGHT == EMPTY, -1, SOURCE), written, source_positions=RIGHT).logits,
            model(jnp.where(left == EMPTY, -1, turned), written, source_positions=left).logits,
        )

    together, first, shorter, nested, padded, from_left = map(
        np.asarray, run(seq2seq(score, num_layers=num_layers, cell="lstm"))
    )
    np.testing.assert_allclose(first, together[0], **small.CLOSE)
    np.testing.assert_allclose(nested[0], together, **small.CLOSE)
    np.testing.assert_allclose(padded, np.stack([first, shorter]), **small.CLOSE)
    np.testing.assert_allclose(from_left, np.stack([first, shorter]), **small.CLOSE)


class Bahdanau(torch.nn.Module):
    """The same sentence in PyTorch, written step by step."""

    def __init__(self, attends: bool):
        super().__init__()
        self.attends = attends
        self.source = torch.nn.Embedding(small.VOCABULARY, D)
        self.target = torch.nn.Embedding(7, D)
        self.encoder = torch.nn.GRU(D, H // 2, bidirectional=True, batch_first=True)
        self.cell = torch.nn.GRU(D + H, H, batch_first=True)
        self.bridge, self.combine, self.head = (torch.nn.Linear(a, b) for a, b in ((H, H), (2 * H, H), (H, 7)))
        self.query, self.key = torch.nn.Linear(H, H), torch.nn.Linear(H, H, bias=False)
        self.vector = torch.nn.Linear(H, 1, bias=False)

    def forward(self, source, written):
        states, final = self.encoder(self.source(source))
        code = torch.cat([final[0], final[1]], dim=-1)
        state = torch.tanh(self.bridge(code))
        logits, maps = [], []
        for t in range(written.shape[1]):
            context = code
            if self.attends:
                z = self.vector(torch.tanh(self.query(state)[:, None] + self.key(states)))[..., 0]
                maps.append(torch.softmax(z, -1))
                context = torch.einsum("bs,bsh->bh", maps[-1], states)
            entry = torch.cat([self.target(written[:, t]), context], dim=-1)
            out, new = self.cell(entry[:, None], state[None])
            state = new[0]
            logits.append(self.head(torch.tanh(self.combine(torch.cat([out[:, 0], context], dim=-1)))))
        return torch.stack(logits, 1), torch.stack(maps, 1) if maps else None


def as_torch(model) -> Bahdanau:
    """The same numbers in PyTorch."""
    theirs = Bahdanau(model.decoder.score is not None)
    to = lambda x: torch.from_numpy(np.array(x[...]))  # noqa: E731

    def linear(theirs, ours):
        theirs.weight.data = to(ours.kernel).T.contiguous()
        if theirs.bias is not None:
            theirs.bias.data = to(ours.bias)

    def rnn(theirs, ours):
        for cell, end in zip(ours.cells, ("l0", "l0_reverse"), strict=False):
            for own, name in ((cell.input, "ih"), (cell.hidden, "hh")):
                getattr(theirs, f"weight_{name}_{end}").data = to(own.kernel).T.contiguous()
                getattr(theirs, f"bias_{name}_{end}").data = to(own.bias)

    theirs.source.weight.data, theirs.target.weight.data = to(model.encoder.embedding), to(model.decoder.embedding)
    rnn(theirs.encoder, model.encoder.rnn)
    rnn(theirs.cell, model.decoder.rnn)
    for name in ("bridge", "combine", "head"):
        linear(getattr(theirs, name), getattr(model.decoder, name))
    score = model.decoder.score
    if score is not None:
        theirs.query.weight.data, theirs.key.weight.data = to(score.query_kernel).T, to(score.key_kernel).T
        theirs.query.bias.data, theirs.vector.weight.data = to(score.bias), to(score.vector)[None]
    return theirs


@pytest.mark.parametrize("score", [*slow("none"), "additive"])
def test_equals_pytorch_forward_maps_and_gradients(score):
    model, written = seq2seq(score), target(2, T)
    theirs = as_torch(model)
    logits, maps = theirs(torch.from_numpy(np.array(SOURCE, np.int64)), torch.from_numpy(np.array(written, np.int64)))
    torch.sin(logits).sum().backward()
    capture = models.Capture(cross=() if maps is None else (0,))

    def loss(model):
        out = model(SOURCE, written, capture=capture)
        return jnp.sin(out.logits).sum(), out

    gradient, out = small.jit(jax.grad(loss, has_aux=True))(model)
    np.testing.assert_allclose(out.logits, logits.detach().numpy(), **small.CLOSE)
    if maps is not None:
        np.testing.assert_allclose(np.asarray(out.captured.cross[0])[:, 0], maps.detach().numpy(), **small.CLOSE)
    pairs = [
        (gradient.encoder.embedding, theirs.source.weight.grad),
        (gradient.encoder.rnn.cells[1].hidden.kernel, theirs.encoder.weight_hh_l0_reverse.grad.T),
        (gradient.decoder.embedding, theirs.target.weight.grad),
        (gradient.decoder.rnn.cells[0].input.kernel, theirs.cell.weight_ih_l0.grad.T),
        (gradient.decoder.bridge.kernel, theirs.bridge.weight.grad.T),
        (gradient.decoder.combine.kernel, theirs.combine.weight.grad.T),
    ]
    if maps is not None:
        pairs.append((gradient.decoder.score.key_kernel, theirs.key.weight.grad.T))
    for ours, other in pairs:
        np.testing.assert_allclose(ours[...], other.numpy(), **small.CLOSE_GRADIENT)


@pytest.mark.parametrize(
    ("score", "num_layers"), slow(pytest.param("location", 1), *(pytest.param(score, 2) for score in SCORES))
)
def test_greedy_decoding_is_the_argmax_of_the_full_pass(score, num_layers):
    """Also beyond `context`, which bounds the source alone."""
    model, start = seq2seq(score, cell="lstm", num_layers=num_layers), np.array([[1, 3], [2, 0]])
    given = model.condition(SOURCE, positions=RIGHT)
    out = decoding.generate(given, start, max_new_tokens=9)
    written = np.concatenate([start, out.tokens], axis=1)
    full = small.jit(lambda model: model(SOURCE, written, source_positions=RIGHT).logits)(model)
    np.testing.assert_array_equal(np.argmax(np.asarray(full)[:, 1:-1], axis=-1), out.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("score", SCORES)
def test_one_beam_is_greedy(score):
    model, start = seq2seq(score, cell="lstm", num_layers=2), np.array([[1, 3], [2, 0]])
    given = model.condition(SOURCE, positions=RIGHT)
    out = decoding.generate(given, start, max_new_tokens=9)
    best = decoding.beam_search(given, start, max_new_tokens=9, num_beams=1)
    np.testing.assert_array_equal(best.tokens, out.tokens)


@pytest.mark.slow
def test_ragged_prompts_and_beams_do_not_know_each_other():
    model = seq2seq("additive")
    given = model.condition(SOURCE, positions=RIGHT)
    together = decoding.beam_search(given, [[1, 2, 3], [4]], max_new_tokens=4, num_beams=3, num_return=3)
    for row, (count, prompt) in enumerate(((5, [1, 2, 3]), (3, [4]))):
        alone = decoding.beam_search(
            model.condition(SOURCE[row, :count]), prompt, max_new_tokens=4, num_beams=3, num_return=3
        )
        np.testing.assert_array_equal(together.tokens[:, row], alone.tokens)
        np.testing.assert_allclose(together.scores[:, row], alone.scores, **small.CLOSE)


@pytest.mark.parametrize("cell", ["gru", *slow("lstm")])
def test_a_state_goes_on_where_the_last_call_ended(cell):
    decoder = seq2seq("additive", cell=cell).decoder

    @small.jit
    def run(model):
        memory = model.encode(SOURCE)
        written = target(2, T)
        whole = model.decoder(written, memory=memory).logits
        first, cache = model.decoder.hidden(written[:, :1], memory=memory, cache=model.decoder.init_cache((2,)))
        second, _ = model.decoder.hidden(written[:, 1:], memory=memory, cache=cache)
        return whole, model.unembed(jnp.concatenate([first, second], axis=1))

    assert decoder.init_cache((3,)).started == False  # noqa: E712
    np.testing.assert_allclose(*run(seq2seq("additive", cell=cell)), **small.CLOSE)


@pytest.mark.slow
def test_without_a_score_nothing_but_the_code_reaches_the_target():
    """And with one, the states do: the derivative by them is 0 in the first case only."""
    for score, some in (("none", False), ("additive", True)):

        @small.jit
        def run(model):
            memory = model.encode(SOURCE)

            def through(states):
                own = dataclasses.replace(memory, states=states)
                return jnp.sin(model.decoder(target(2, T), memory=own).logits).sum()

            return jax.grad(through)(memory.states)

        assert bool(np.any(run(seq2seq(score)))) == some


@pytest.mark.slow
def test_the_tanh_free_concat_rule_gives_every_word_the_same_map():
    """Its score is a_t + b_s, so the softmax over s forgets t: it cannot align."""
    capture = models.Capture(cross="all")
    run = small.jit(lambda model: model(SOURCE, target(2, T), capture=capture).captured.cross[0])
    concat, additive = run(seq2seq("concat")), run(seq2seq("additive"))
    np.testing.assert_allclose(concat, jnp.broadcast_to(concat[:, :, :1], concat.shape), **small.CLOSE)
    assert np.abs(np.diff(additive, axis=2)).max() > 1e-3


def test_models_with_and_without_attention_differ_by_the_score_alone():
    count = lambda model: sum(x.size for x in jax.tree.leaves(model))  # noqa: E731
    none, dot, additive = (count(seq2seq(score)) for score in ("none", "dot", "additive"))
    assert none == dot
    assert additive - none == 2 * H * H + 2 * H


def test_dropout_is_drawn_in_both_halves():
    model = seq2seq("additive", dropout=0.5)

    @small.jit
    def run(model, seed):
        rng = jax.random.key(seed)
        return model(SOURCE, target(2, T), rng=rng).logits, model.encode(SOURCE, rng=rng).states

    for first, same, other in zip(*(run(model, seed) for seed in (0, 0, 1)), strict=True):
        np.testing.assert_array_equal(first, same)
        assert difference(first, other) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "order"),
    [("additive", 1), *(pytest.param(score, 2, marks=pytest.mark.slow) for score in ("additive", "location"))],
)
def test_derivatives_in_both_modes(score, order):
    model = seq2seq(score, width=3, hidden_size=4, context=3)
    call = jax.jit(lambda model: jnp.sin(model(SOURCE[0, :3], target(T)[:2]).logits).sum())
    check_grads(call, (model,), order=order, modes=("fwd", "rev"), rtol=2e-2, atol=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("score", slow_except(("additive",), SCORES))
def test_a_source_of_padding_alone_has_derivatives(score):
    rows = jnp.array([[0, 1, EMPTY, 2, 3], [EMPTY] * 5])
    found = lambda model: model(SOURCE, target(2, T), source_positions=rows).logits  # noqa: E731
    run = small.jit(jax.value_and_grad(lambda model: jnp.sum(jnp.tanh(found(model)))))
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(run(seq2seq(score))))


@pytest.mark.slow
def test_models_in_a_batch():
    """`vmap` over parameters is one model after the other."""
    single = [small.filled(lambda: models.create(config()), seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *single)
    run = lambda model: model(SOURCE, target(2, T), source_positions=RIGHT).logits  # noqa: E731
    found = small.jit(jax.vmap(run))(stacked)
    np.testing.assert_allclose(found, np.stack([small.jit(run)(model) for model in single]), **small.CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [*slow("gru"), "lstm"])
def test_the_last_of_several_layers_gives_code_and_queries(cell):
    """C is what the last layer said after its last token in each direction; a query is the last layer's state."""
    written = target(2, T)

    @small.jit
    def run(model):
        memory = model.encode(SOURCE, positions=RIGHT)
        out = model(SOURCE, written, source_positions=RIGHT, capture=models.Capture(cross="all"))
        return memory, model.decoder.hidden(written[:, :2], memory=memory)[1].state, out.captured.cross[0]

    memory, state, maps = run(seq2seq("dot", cell=cell, num_layers=2))
    ahead, back = memory.states[..., : H // 2], memory.states[..., H // 2 :]
    ends = jnp.stack([ahead[0, 4], ahead[1, 2]])  # five tokens and three
    np.testing.assert_allclose(memory.code, jnp.concatenate([ends, back[:, 0]], axis=-1), **small.CLOSE)
    query = (state[0] if cell == "lstm" else state)[:, -1]
    raw = jnp.where(memory.real, jnp.einsum("bh,bsh->bs", query, memory.states), -jnp.inf)
    np.testing.assert_allclose(maps[:, 0, 2], jax.nn.softmax(raw), **small.CLOSE)
