"""Encoder and decoder of the recurrent sequence-to-sequence model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention import masks
from jax_attention.attention.attend import attend, attention_weights
from jax_attention.cache import EMPTY
from jax_attention.core.checks import broadcasts, check_instance, check_positions, check_tokens, fail_unless
from jax_attention.core.numerics import compute_dtype, pvary_like
from jax_attention.core.struct import data_field, struct
from jax_attention.models.block import drop, fold, learned_if_floating, table_rows
from jax_attention.models.results import Capture, CaptureResult, LMOutput
from jax_attention.models.rnn_config import RNNConfig
from jax_attention.nn import GRU, LSTM, Additive, Linear, Location
from jax_attention.nn.freeze import freeze, unfreeze
from jax_attention.nn.short_repr import ShortRepr

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

CELLS = {"gru": GRU, "lstm": LSTM}


@struct
class RNNMemory:
    """The encoder's reading of a source: its states, which of them hold a token, and its code."""

    states: jax.Array = data_field()
    """h: one row for each source token, `[..., S, H]`."""
    real: jax.Array = data_field()
    """Whether a row holds a token and not padding, bool `[..., S]`."""
    code: jax.Array = data_field()
    """C: the state after the whole source, `[..., H]`."""


@struct
class RNNState:
    """The state of the decoder after the tokens so far: the cache of `decoding.generate`."""

    state: Any = data_field()
    """State of the cell; its arrays are `[..., num_layers, H]`."""
    started: jax.Array = data_field()
    """bool `[]`: False before the first token, where the state is computed from the code instead."""


class RNNEncoder(ShortRepr, nnx.Module):
    """Embeddings and a recurrent layer over them: source tokens to an `RNNMemory`."""

    def __init__(self, config: RNNConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embedding = _make_table(config.source_vocab_size, config, rngs)
        size = config.hidden_size // (2 if config.bidirectional else 1)
        options = {"num_layers": config.num_layers, "bidirectional": config.bidirectional}
        self.rnn = CELLS[config.cell](config.width, size, **options, param_dtype=_dtype(config), rngs=rngs)

    def __call__(self, source: Any, positions: Any = None, rng: jax.Array | None = None) -> RNNMemory:
        """States, mask and code of a source. Tokens at position `cache.EMPTY` are padding, on either side or between.

        The rows of the memory are those of the source. With `nn.Location`, whose parameters belong to rows, tokens come
        first and padding last.
        """
        source = check_tokens("source", source)
        x = drop(table_rows(self.embedding, source, _dtype(self.config)), self.config.dropout, rng)
        if positions is None:
            states, final = self.rnn(x)
            return RNNMemory(states, jnp.ones(source.shape, bool), self._code(final))
        positions = check_positions("positions", positions, source.shape[-1], source.shape[:-1])
        positions = jnp.broadcast_to(positions, source.shape)
        # EMPTY is the largest position: sorting moves padding to the end, where the recurrent layer expects it.
        order, real = jnp.argsort(positions, axis=-1), positions != EMPTY
        states, final = self.rnn(_take_rows(x, order), lengths=real.sum(-1))
        if self.config.fixed_length:
            return RNNMemory(states, jnp.take_along_axis(real, order, axis=-1), self._code(final))
        inverse_order = jnp.argsort(order, axis=-1)
        return RNNMemory(_take_rows(states, inverse_order), real, self._code(final))

    def _code(self, final: Any) -> jax.Array:
        """The outputs of the last layer after its last token, both directions concatenated."""
        h = final[0] if self.config.cell == "lstm" else final
        last = h[..., -self.rnn.directions :, :]
        return last.reshape(*last.shape[:-2], self.config.hidden_size)


class RNNDecoder(ShortRepr, nnx.Module):
    """A language model of the target given a memory, with the methods of `LanguageModel`."""

    def __init__(self, config: RNNConfig, *, rngs: nnx.Rngs):
        options = {"param_dtype": _dtype(config), "rngs": rngs}
        size = config.hidden_size
        self.config = config
        self.embedding = _make_table(config.vocab_size, config, rngs)
        self.rnn = CELLS[config.cell](config.width + size, size, num_layers=config.num_layers, **options)
        self.bridge = Linear(size, len(self.rnn.state_names) * config.num_layers * size, **options)
        self.score = None if config.score is None else freeze(_make_score(config, options))
        normalize = config.normalize
        self.normalize = freeze(learned_if_floating(normalize, config.param_dtype) if config.train_rule else normalize)
        self.combine = Linear(2 * size, size, **options)
        self.head = Linear(size, config.vocab_size, **options)

    def __call__(self, tokens: Int[Array, "*batch T"], *, capture: Capture | None = None, **options: Any) -> LMOutput:
        """Logits of the next token at every position; options as in `hidden`."""
        with_weights = capture is not None and self._captures_weights(capture)
        hidden, cache, weights = self._run(tokens, with_weights=with_weights, **options)
        captured = None if capture is None else CaptureResult({}, {}, {0: weights} if with_weights else {})
        return LMOutput(self.unembed(hidden), cache, captured)

    def hidden(
        self,
        tokens: Int[Array, "*batch T"],
        *,
        memory: RNNMemory,
        positions: Int[Array, "*#batch T"] | None = None,
        cache: RNNState | None = None,
        rng: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "*batch T H"], RNNState]:
        """Hidden states before the head, and the state after the tokens; tokens at `cache.EMPTY` do not change it."""
        return self._run(tokens, memory=memory, positions=positions, cache=cache, rng=rng)[:2]

    def unembed(self, hidden: Float[Array, "*batch H"]) -> Float[Array, "*batch V"]:
        """Logits of hidden states."""
        return self.head(hidden).astype(compute_dtype(hidden.dtype))

    def init_cache(self, batch: tuple[int, ...] = (), capacity: int | None = None) -> RNNState:
        """The state before the first token; it has the same size after any number of tokens, whatever `capacity` is."""
        zeros = jnp.zeros((*batch, self.config.num_layers, self.config.hidden_size), _dtype(self.config))
        return RNNState(_pack([zeros] * len(self.rnn.state_names)), jnp.zeros((), bool))

    def _run(
        self,
        tokens: Any,
        *,
        memory: Any,
        positions: Any = None,
        cache: RNNState | None = None,
        rng: jax.Array | None = None,
        with_weights: bool = False,
    ) -> tuple[jax.Array, RNNState, jax.Array | None]:
        """Hidden states `[..., T, H]`, the state after them, and attention weights `[..., 1, T, S]` or None."""
        tokens = check_tokens("tokens", tokens)
        check_instance("memory", memory, RNNMemory, "models.RNNMemory", "Make it by model.encode(source).")
        *batch, count = tokens.shape
        fail_unless(
            broadcasts(memory.code.shape[:-1], tuple(batch)),
            f"memory: expected batch dimensions that broadcast to those of the target, {tuple(batch)}, got "
            f"{memory.code.shape[:-1]}. Give a target for each source.",
        )
        real = jnp.ones(tokens.shape, bool)
        if positions is not None:
            real = check_positions("positions", positions, count, tuple(batch)) != EMPTY
            real = jnp.broadcast_to(real, tokens.shape)
        x = drop(table_rows(self.embedding, tokens, _dtype(self.config)), self.config.dropout, fold(rng, 0))
        state = self._initial_state(memory, tuple(batch), cache)
        state = pvary_like(state, (x, memory, real, self))

        def step(state: Any, row: tuple[jax.Array, jax.Array]) -> tuple[Any, tuple]:
            x, real = row
            # c_i from s_(i-1), then s_i = cell([y_(i-1) ; c_i], s_(i-1)): Bahdanau et al., appendix A.2.2.
            context, weights = self._attend(state, x, memory, with_weights)
            out, new = self.rnn(jnp.concatenate([x, context], axis=-1)[..., None, :], state)
            state = jax.tree.map(lambda new, old: jnp.where(real[..., None, None], new, old), new, state)
            return state, (out[..., 0, :], context, weights)

        rows = jnp.moveaxis(x, -2, 0), jnp.moveaxis(real, -1, 0)
        state, (outputs, contexts, weights) = jax.lax.scan(step, state, rows)
        both = jnp.moveaxis(jnp.concatenate([outputs, contexts], axis=-1), 0, -2)
        # tanh(W_c [c_i ; s_i]), the attentional hidden state: Luong et al., equation 5.
        hidden = drop(jnp.tanh(self.combine(both)), self.config.dropout, fold(rng, 1))
        weights = None if weights is None else jnp.moveaxis(weights, 0, -2)[..., None, :, :]
        return hidden, RNNState(state, jnp.ones((), bool)), weights

    def _attend(
        self, state: Any, x: jax.Array, memory: RNNMemory, with_weights: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """The context c_i: attention of the last state to the states of the source, or the code without a score."""
        if self.score is None:
            return jnp.broadcast_to(memory.code, (*x.shape[:-1], memory.code.shape[-1])), None
        query = _unpack(state)[0][..., -1:, :]
        key = x[..., None, :] if self.config.fixed_length else memory.states
        rule = {"score": unfreeze(self.score), "normalize": unfreeze(self.normalize)}
        rule["mask"] = masks.dense(memory.real[..., None, :])
        context = attend(query, key, memory.states, **rule)[..., 0, :]
        weights = attention_weights(query, key, memory.states, **rule)[..., 0, :] if with_weights else None
        return context, weights

    def _initial_state(self, memory: RNNMemory, batch: tuple[int, ...], cache: RNNState | None) -> Any:
        """The state before these tokens: that of the cache, or computed from the code where no token was read yet."""
        shape = (*batch, self.config.num_layers, self.config.hidden_size)
        # s_0 = tanh(W_s C), an affine map of the encoder's last state: Bahdanau et al., appendix A.2.2.
        arrays = jnp.split(jnp.tanh(self.bridge(memory.code)), len(self.rnn.state_names), axis=-1)
        first = [jnp.broadcast_to(array.reshape(*array.shape[:-1], *shape[-2:]), shape) for array in arrays]
        if cache is None:
            return _pack(first)
        check_instance("cache", cache, RNNState, "models.RNNState", "Make it by model.init_cache(batch).")
        cached = _unpack(cache.state)
        return _pack([jnp.where(cache.started, old, new) for old, new in zip(cached, first, strict=True)])

    def _captures_weights(self, capture: Capture) -> bool:
        """Whether attention weights over the source are requested; a recurrent model can capture nothing else."""
        weights, hidden, cross = capture.layers(1)
        fail_unless(
            not weights and not hidden,
            f"capture: expected cross alone, as a recurrent model has no other weights and no blocks, got {capture!r}.",
        )
        fail_unless(
            not cross or self.score is not None,
            "capture.cross: expected nothing, as a model with score=None attends to nothing. Leave it out.",
        )
        return bool(cross)


def _make_score(config: RNNConfig, options: dict[str, Any]) -> Any:
    """The score of the config: a module for a class with parameters, otherwise the score itself."""
    size = config.hidden_size
    if config.score is Additive:
        return Additive(size, size, config.attention_size or size, use_vector=config.attention_vector, **options)
    if config.score is Location:
        return Location(size, config.width, config.context, **options)
    if isinstance(config.score, type):
        return config.score(size, size, **options)
    return learned_if_floating(config.score, config.param_dtype) if config.train_rule else config.score


def _make_table(rows: int, config: RNNConfig, rngs: nnx.Rngs) -> nnx.Param:
    shape = (rows, config.width)
    return nnx.Param(jax.random.normal(rngs.params(), shape, _dtype(config)) * config.width**-0.5)


def _take_rows(x: jax.Array, order: jax.Array) -> jax.Array:
    """Rows of `x[..., S, H]` in the order `[..., S]`."""
    return jnp.take_along_axis(x, order[..., None], axis=-2)


def _pack(arrays: list[jax.Array]) -> Any:
    """The state of a cell from its arrays: a tuple for LSTM, one array for GRU."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _unpack(state: Any) -> tuple:
    """The arrays of the state of a cell, the inverse of `_pack`."""
    return state if isinstance(state, tuple) else (state,)


def _dtype(config: RNNConfig) -> jnp.dtype:
    return jnp.dtype(config.param_dtype)
