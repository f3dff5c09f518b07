"""The halves of a recurrent encoder–decoder: what reads a source, and what writes a target beside it."""

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
from jax_attention.models.block import drop, fold, table_rows, trained
from jax_attention.models.results import Capture, CaptureResult, LMOutput
from jax_attention.models.rnn_config import RNNConfig
from jax_attention.nn import GRU, LSTM, Additive, Linear, Location
from jax_attention.nn.freeze import freeze, unfreeze

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

CELLS = {"gru": GRU, "lstm": LSTM}


@struct
class RNNMemory:
    """What the encoder makes of a source."""

    states: jax.Array = data_field()
    """h: one row for each token, `[..., S, H]`."""
    real: jax.Array = data_field()
    """Which rows hold a token, bool `[..., S]`."""
    code: jax.Array = data_field()
    """C: the state after the whole source, `[..., H]`."""


@struct
class RNNState:
    """Where the decoder stands: the cache of `decoding.generate`."""

    state: Any = data_field()
    """Of the cell; its arrays are `[..., num_layers, H]`."""
    started: jax.Array = data_field()
    """bool `[]`: False until the first token, whose state comes from the code."""


class RNNEncoder(nnx.Module):
    """Embeddings and a recurrent layer over them: `(states, real, code)` of a source."""

    def __init__(self, config: RNNConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embedding = _table(config.source_vocab_size, config, rngs)
        size = config.hidden_size // (2 if config.bidirectional else 1)
        options = {"num_layers": config.num_layers, "bidirectional": config.bidirectional}
        self.rnn = CELLS[config.cell](config.width, size, **options, param_dtype=_dtype(config), rngs=rngs)

    def __call__(self, source: Any, positions: Any = None, rng: jax.Array | None = None) -> RNNMemory:
        """Tokens at `cache.EMPTY` are padding, wherever they stand; the others are read in the order they have.

        Rows of the memory are those of the source; for `nn.Location`, whose parameters belong to them, tokens come
        first.
        """
        source = check_tokens("source", source)
        x = drop(table_rows(self.embedding, source, _dtype(self.config)), self.config.dropout, rng)
        if positions is None:
            states, final = self.rnn(x)
            return RNNMemory(states, jnp.ones(source.shape, bool), self._code(final))
        places = check_positions("positions", positions, source.shape[-1], source.shape[:-1])
        places = jnp.broadcast_to(places, source.shape)
        order, real = jnp.argsort(places, axis=-1), places != EMPTY
        front = lambda x, order: jnp.take_along_axis(x, order[..., None], axis=-2)  # noqa: E731
        states, final = self.rnn(front(x, order), lengths=real.sum(-1))
        if self.config.fixed_length:
            return RNNMemory(states, jnp.take_along_axis(real, order, axis=-1), self._code(final))
        return RNNMemory(front(states, jnp.argsort(order, axis=-1)), real, self._code(final))

    def _code(self, final: Any) -> jax.Array:
        """The outputs of the last layer after the last token it read, its directions side by side."""
        h = final[0] if self.config.cell == "lstm" else final
        last = h[..., -self.rnn.directions :, :]
        return last.reshape(*last.shape[:-2], self.config.hidden_size)


class RNNDecoder(nnx.Module):
    """A language model of the target that knows a memory: `hidden`, `unembed` and `init_cache` as `TransformerLM`."""

    def __init__(self, config: RNNConfig, *, rngs: nnx.Rngs):
        options = {"param_dtype": _dtype(config), "rngs": rngs}
        size = config.hidden_size
        self.config = config
        self.embedding = _table(config.vocab_size, config, rngs)
        self.rnn = CELLS[config.cell](config.width + size, size, num_layers=config.num_layers, **options)
        self.bridge = Linear(size, len(self.rnn.state_names) * config.num_layers * size, **options)
        self.score = None if config.score is None else freeze(_score(config, options))
        self.normalize = freeze(
            trained(config.normalize, config.param_dtype) if config.train_rule else config.normalize
        )
        self.combine = Linear(2 * size, size, **options)
        self.head = Linear(size, config.vocab_size, **options)

    def __call__(self, tokens: Int[Array, "*batch T"], *, capture: Capture | None = None, **options: Any) -> LMOutput:
        """Logits of the next token at every place; options as in `hidden`."""
        wants = capture is not None and self._wants(capture)
        hidden, cache, maps = self._run(tokens, maps=wants, **options)
        captured = None if capture is None else CaptureResult({}, {}, {0: maps} if wants else {})
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
        """What the head sees, and where the decoder stands then; tokens at `cache.EMPTY` leave it alone."""
        return self._run(tokens, memory=memory, positions=positions, cache=cache, rng=rng)[:2]

    def unembed(self, hidden: Float[Array, "*batch H"]) -> Float[Array, "*batch V"]:
        """Logits of hidden states."""
        return self.head(hidden).astype(compute_dtype(hidden.dtype))

    def init_cache(self, batch: tuple[int, ...] = (), capacity: int | None = None) -> RNNState:
        """Before the first token; a state holds any number of them, so `capacity` changes nothing."""
        zeros = jnp.zeros((*batch, self.config.num_layers, self.config.hidden_size), _dtype(self.config))
        return RNNState(self._joined([zeros] * len(self.rnn.state_names)), jnp.zeros((), bool))

    def _run(
        self,
        tokens: Any,
        *,
        memory: Any,
        positions: Any = None,
        cache: RNNState | None = None,
        rng: jax.Array | None = None,
        maps: bool = False,
    ) -> tuple[jax.Array, RNNState, jax.Array | None]:
        tokens = check_tokens("tokens", tokens)
        check_instance("memory", memory, RNNMemory, "models.RNNMemory", "Make it by model.encode(source).")
        *batch, count = tokens.shape
        fail_unless(
            broadcasts(memory.code.shape[:-1], tuple(batch)),
            f"memory: expected leading axes that broadcast to those of the target, {tuple(batch)}, got "
            f"{memory.code.shape[:-1]}. Give a target for each source.",
        )
        real = jnp.ones(tokens.shape, bool)
        if positions is not None:
            real = check_positions("positions", positions, count, tuple(batch)) != EMPTY
            real = jnp.broadcast_to(real, tokens.shape)
        x = drop(table_rows(self.embedding, tokens, _dtype(self.config)), self.config.dropout, fold(rng, 0))
        state = self._start(memory, tuple(batch), cache)
        state = pvary_like(state, (x, memory, real, self))

        def step(state: Any, row: tuple[jax.Array, jax.Array]) -> tuple[Any, tuple]:
            x, real = row
            context, weights = self._look(state, x, memory, maps)
            out, new = self.rnn(jnp.concatenate([x, context], axis=-1)[..., None, :], state)
            state = jax.tree.map(lambda new, old: jnp.where(real[..., None, None], new, old), new, state)
            return state, (out[..., 0, :], context, weights)

        rows = jnp.moveaxis(x, -2, 0), jnp.moveaxis(real, -1, 0)
        state, (outputs, contexts, weights) = jax.lax.scan(step, state, rows)
        joined = jnp.moveaxis(jnp.concatenate([outputs, contexts], axis=-1), 0, -2)
        hidden = drop(jnp.tanh(self.combine(joined)), self.config.dropout, fold(rng, 1))
        weights = None if weights is None else jnp.moveaxis(weights, 0, -2)[..., None, :, :]
        return hidden, RNNState(state, jnp.ones((), bool)), weights

    def _look(self, state: Any, x: jax.Array, memory: RNNMemory, maps: bool) -> tuple[jax.Array, jax.Array | None]:
        """c_i: the fixed code, or what the last state finds among the source's states."""
        if self.score is None:
            return jnp.broadcast_to(memory.code, (*x.shape[:-1], memory.code.shape[-1])), None
        query = self._parts(state)[0][..., -1:, :]
        key = x[..., None, :] if self.config.fixed_length else memory.states
        rule = {"score": unfreeze(self.score), "normalize": unfreeze(self.normalize)}
        rule["mask"] = masks.dense(memory.real[..., None, :])
        context = attend(query, key, memory.states, **rule)[..., 0, :]
        return context, attention_weights(query, key, memory.states, **rule)[..., 0, :] if maps else None

    def _start(self, memory: RNNMemory, batch: tuple[int, ...], cache: RNNState | None) -> Any:
        """The state before the first of these tokens: from the code, unless some were read."""
        shape = (*batch, self.config.num_layers, self.config.hidden_size)
        parts = jnp.split(jnp.tanh(self.bridge(memory.code)), len(self.rnn.state_names), axis=-1)
        first = [jnp.broadcast_to(part.reshape(*part.shape[:-1], *shape[-2:]), shape) for part in parts]
        if cache is None:
            return self._joined(first)
        check_instance("cache", cache, RNNState, "models.RNNState", "Make it by model.init_cache(batch).")
        given = self._parts(cache.state)
        return self._joined([jnp.where(cache.started, old, new) for old, new in zip(given, first, strict=True)])

    def _parts(self, state: Any) -> tuple:
        return state if isinstance(state, tuple) else (state,)

    def _joined(self, parts: list[jax.Array]) -> Any:
        return parts[0] if len(parts) == 1 else tuple(parts)

    def _wants(self, capture: Capture) -> bool:
        """Whether maps over the source are asked for; there is nothing else to ask for."""
        own, hidden, cross = capture.layers(1)
        fail_unless(
            not own and not hidden,
            f"capture: expected cross alone, as a recurrent model has no other maps and no blocks, got {capture!r}.",
        )
        fail_unless(
            not cross or self.score is not None,
            "capture.cross: expected nothing, as a model with score=None attends to nothing. Leave it out.",
        )
        return bool(cross)


def _score(config: RNNConfig, options: dict[str, Any]) -> Any:
    """The module of a learned score, or the value."""
    size = config.hidden_size
    if config.score is Additive:
        return Additive(size, size, config.attention_size or size, use_vector=config.attention_vector, **options)
    if config.score is Location:
        return Location(size, config.width, config.context, **options)
    if isinstance(config.score, type):
        return config.score(size, size, **options)
    return trained(config.score, config.param_dtype) if config.train_rule else config.score


def _table(rows: int, config: RNNConfig, rngs: nnx.Rngs) -> nnx.Param:
    shape = (rows, config.width)
    return nnx.Param(jax.random.normal(rngs.params(), shape, _dtype(config)) * config.width**-0.5)


def _dtype(config: RNNConfig) -> jnp.dtype:
    return jnp.dtype(config.param_dtype)
