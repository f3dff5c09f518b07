"""Recurrent encoder–decoders: against PyTorch, padding, batches, attention weights, derivatives, generation."""

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
def test_batch_dimensions_and_padding_change_nothing(score, num_layers):
    """Every row equals the row in the batch; padding may hold any token, even one whose embedding is NaN."""
    left = np.array([[0, 1, 2, 3, 4], [EMPTY, EMPTY, 0, 1, 2]])
    rolled = np.stack([SOURCE[0], np.roll(SOURCE[1], 2)])
    tokens = target(2, T)

    @small.jit
    def run(model):
        return (
            model(SOURCE, tokens).logits,
            model(SOURCE[0], tokens[0]).logits,
            model(SOURCE[1, :3], tokens[1]).logits,
            model(SOURCE[None], tokens[None]).logits,
            model(jnp.where(RIGHT == EMPTY, -1, SOURCE), tokens, source_positions=RIGHT).logits,
            model(jnp.where(left == EMPTY, -1, rolled), tokens, source_positions=left).logits,
        )

    together, first, shorter, nested, padded, from_left = map(
        np.asarray, run(seq2seq(score, num_layers=num_layers, cell="lstm"))
    )
    np.testing.assert_allclose(first, together[0], **small.CLOSE)
    np.testing.assert_allclose(nested[0], together, **small.CLOSE)
    np.testing.assert_allclose(padded, np.stack([first, shorter]), **small.CLOSE)
    np.testing.assert_allclose(from_left, np.stack([first, shorter]), **small.CLOSE)


class Bahdanau(torch.nn.Module):
    """The same model in PyTorch, written step by step."""

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


def to_tensor(param) -> torch.Tensor:
    return torch.from_numpy(np.array(param[...]))


def copy_linear(torch_linear, jax_linear):
    torch_linear.weight.data = to_tensor(jax_linear.kernel).T.contiguous()
    if torch_linear.bias is not None:
        torch_linear.bias.data = to_tensor(jax_linear.bias)


def copy_rnn(torch_rnn, jax_rnn):
    for cell, suffix in zip(jax_rnn.cells, ("l0", "l0_reverse"), strict=False):
        for layer, name in ((cell.input, "ih"), (cell.hidden, "hh")):
            getattr(torch_rnn, f"weight_{name}_{suffix}").data = to_tensor(layer.kernel).T.contiguous()
            getattr(torch_rnn, f"bias_{name}_{suffix}").data = to_tensor(layer.bias)


def as_torch(model) -> Bahdanau:
    """The PyTorch model with the same parameters."""
    torch_model = Bahdanau(model.decoder.score is not None)
    torch_model.source.weight.data = to_tensor(model.encoder.embedding)
    torch_model.target.weight.data = to_tensor(model.decoder.embedding)
    copy_rnn(torch_model.encoder, model.encoder.rnn)
    copy_rnn(torch_model.cell, model.decoder.rnn)
    for name in ("bridge", "combine", "head"):
        copy_linear(getattr(torch_model, name), getattr(model.decoder, name))
    score = model.decoder.score
    if score is not None:
        torch_model.query.weight.data = to_tensor(score.query_kernel).T
        torch_model.key.weight.data = to_tensor(score.key_kernel).T
        torch_model.query.bias.data = to_tensor(score.bias)
        torch_model.vector.weight.data = to_tensor(score.vector)[None]
    return torch_model


@pytest.mark.parametrize("score", [*slow("none"), "additive"])
def test_equals_pytorch_forward_weights_and_gradients(score):
    model, tokens = seq2seq(score), target(2, T)
    torch_model = as_torch(model)
    logits, weights = torch_model(*(torch.from_numpy(np.array(x, np.int64)) for x in (SOURCE, tokens)))
    torch.sin(logits).sum().backward()
    capture = models.Capture(cross=() if weights is None else (0,))

    def loss(model):
        out = model(SOURCE, tokens, capture=capture)
        return jnp.sin(out.logits).sum(), out

    gradient, out = small.jit(jax.grad(loss, has_aux=True))(model)
    np.testing.assert_allclose(out.logits, logits.detach().numpy(), **small.CLOSE)
    if weights is not None:
        np.testing.assert_allclose(np.asarray(out.captured.cross[0])[:, 0], weights.detach().numpy(), **small.CLOSE)
    pairs = [
        (gradient.encoder.embedding, torch_model.source.weight.grad),
        (gradient.encoder.rnn.cells[1].hidden.kernel, torch_model.encoder.weight_hh_l0_reverse.grad.T),
        (gradient.decoder.embedding, torch_model.target.weight.grad),
        (gradient.decoder.rnn.cells[0].input.kernel, torch_model.cell.weight_ih_l0.grad.T),
        (gradient.decoder.bridge.kernel, torch_model.bridge.weight.grad.T),
        (gradient.decoder.combine.kernel, torch_model.combine.weight.grad.T),
    ]
    if weights is not None:
        pairs.append((gradient.decoder.score.key_kernel, torch_model.key.weight.grad.T))
    for jax_gradient, torch_gradient in pairs:
        np.testing.assert_allclose(jax_gradient[...], torch_gradient.numpy(), **small.CLOSE_GRADIENT)


@pytest.mark.parametrize(
    ("score", "num_layers"), slow(pytest.param("location", 1), *(pytest.param(score, 2) for score in SCORES))
)
def test_greedy_decoding_is_the_argmax_of_the_full_pass(score, num_layers):
    """Generation may also go beyond `context`, which limits the source only."""
    model, start = seq2seq(score, cell="lstm", num_layers=num_layers), np.array([[1, 3], [2, 0]])
    decoder = model.condition(SOURCE, positions=RIGHT)
    out = decoding.generate(decoder, start, max_new_tokens=9)
    written = np.concatenate([start, out.tokens], axis=1)
    full = small.jit(lambda model: model(SOURCE, written, source_positions=RIGHT).logits)(model)
    np.testing.assert_array_equal(np.argmax(np.asarray(full)[:, 1:-1], axis=-1), out.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("score", SCORES)
def test_one_beam_is_greedy(score):
    model, start = seq2seq(score, cell="lstm", num_layers=2), np.array([[1, 3], [2, 0]])
    decoder = model.condition(SOURCE, positions=RIGHT)
    out = decoding.generate(decoder, start, max_new_tokens=9)
    best = decoding.beam_search(decoder, start, max_new_tokens=9, num_beams=1)
    np.testing.assert_array_equal(best.tokens, out.tokens)


@pytest.mark.slow
def test_ragged_prompts_and_beams_do_not_depend_on_each_other():
    model = seq2seq("additive")
    decoder = model.condition(SOURCE, positions=RIGHT)
    together = decoding.beam_search(decoder, [[1, 2, 3], [4]], max_new_tokens=4, num_beams=3, num_return=3)
    for row, (count, prompt) in enumerate(((5, [1, 2, 3]), (3, [4]))):
        single = decoding.beam_search(
            model.condition(SOURCE[row, :count]), prompt, max_new_tokens=4, num_beams=3, num_return=3
        )
        np.testing.assert_array_equal(together.tokens[:, row], single.tokens)
        np.testing.assert_allclose(together.scores[:, row], single.scores, **small.CLOSE)


@pytest.mark.parametrize("cell", ["gru", *slow("lstm")])
def test_a_state_goes_on_where_the_last_call_ended(cell):
    decoder = seq2seq("additive", cell=cell).decoder

    @small.jit
    def run(model):
        memory = model.encode(SOURCE)
        tokens = target(2, T)
        whole = model.decoder(tokens, memory=memory).logits
        first, cache = model.decoder.hidden(tokens[:, :1], memory=memory, cache=model.decoder.init_cache((2,)))
        second, _ = model.decoder.hidden(tokens[:, 1:], memory=memory, cache=cache)
        return whole, model.unembed(jnp.concatenate([first, second], axis=1))

    assert decoder.init_cache((3,)).started == False  # noqa: E712
    np.testing.assert_allclose(*run(seq2seq("additive", cell=cell)), **small.CLOSE)


@pytest.mark.slow
def test_without_a_score_nothing_but_the_code_reaches_the_target():
    """The derivative with respect to the encoder's states is 0 without a score, and not 0 with one."""
    for score, depends in (("none", False), ("additive", True)):

        @small.jit
        def run(model):
            memory = model.encode(SOURCE)

            def through(states):
                changed = dataclasses.replace(memory, states=states)
                return jnp.sin(model.decoder(target(2, T), memory=changed).logits).sum()

            return jax.grad(through)(memory.states)

        assert bool(np.any(run(seq2seq(score)))) == depends


@pytest.mark.slow
def test_the_tanh_free_concat_rule_gives_every_query_the_same_weights():
    """The score is a_t + b_s, and the softmax over s cancels a_t: the rule cannot align."""
    capture = models.Capture(cross="all")
    run = small.jit(lambda model: model(SOURCE, target(2, T), capture=capture).captured.cross[0])
    concat, additive = run(seq2seq("concat")), run(seq2seq("additive"))
    np.testing.assert_allclose(concat, jnp.broadcast_to(concat[:, :, :1], concat.shape), **small.CLOSE)
    assert np.abs(np.diff(additive, axis=2)).max() > 1e-3


def test_models_with_and_without_attention_differ_by_the_score_only():
    count = lambda model: sum(x.size for x in jax.tree.leaves(model))  # noqa: E731
    none, dot, additive = (count(seq2seq(score)) for score in ("none", "dot", "additive"))
    assert none == dot
    assert additive - none == 2 * H * H + 2 * H


def test_dropout_is_drawn_in_encoder_and_decoder():
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
    logits = lambda model: model(SOURCE, target(2, T), source_positions=rows).logits  # noqa: E731
    run = small.jit(jax.value_and_grad(lambda model: jnp.sum(jnp.tanh(logits(model)))))
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(run(seq2seq(score))))


@pytest.mark.slow
def test_models_in_a_batch():
    """`vmap` over parameters equals one model after the other."""
    single = [small.filled(lambda: models.create(config()), seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *single)
    run = lambda model: model(SOURCE, target(2, T), source_positions=RIGHT).logits  # noqa: E731
    found = small.jit(jax.vmap(run))(stacked)
    np.testing.assert_allclose(found, np.stack([small.jit(run)(model) for model in single]), **small.CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [*slow("gru"), "lstm"])
def test_the_last_of_several_layers_gives_code_and_queries(cell):
    """C is the last layer's output after its last token in each direction; a query is the last layer's state."""
    tokens = target(2, T)

    @small.jit
    def run(model):
        memory = model.encode(SOURCE, positions=RIGHT)
        out = model(SOURCE, tokens, source_positions=RIGHT, capture=models.Capture(cross="all"))
        return memory, model.decoder.hidden(tokens[:, :2], memory=memory)[1].state, out.captured.cross[0]

    memory, state, maps = run(seq2seq("dot", cell=cell, num_layers=2))
    ahead, back = memory.states[..., : H // 2], memory.states[..., H // 2 :]
    ends = jnp.stack([ahead[0, 4], ahead[1, 2]])  # five tokens and three
    np.testing.assert_allclose(memory.code, jnp.concatenate([ends, back[:, 0]], axis=-1), **small.CLOSE)
    query = (state[0] if cell == "lstm" else state)[:, -1]
    raw = jnp.where(memory.real, jnp.einsum("bh,bsh->bs", query, memory.states), -jnp.inf)
    np.testing.assert_allclose(maps[:, 0, 2], jax.nn.softmax(raw), **small.CLOSE)
