"""GRU and LSTM with the arithmetic of PyTorch: for each layer and direction one product and one scan over the rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jax_attention.core.checks import check_array, check_int, describe_array, fail_unless
from jax_attention.core.numerics import pvary_like
from jax_attention.nn.linear import Linear

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class Cell(nnx.Module):
    """The parameters of one layer in one direction: two linear layers that give all gates side by side."""

    def __init__(self, in_features: int, hidden_size: int, gates: int, use_bias: bool, **options: Any):
        bound = hidden_size**-0.5

        def init(key: jax.Array, shape: tuple[int, ...], dtype: Any, **spread: Any) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound, **spread)

        options = {"kernel_init": init, "bias_init": init, **options}
        self.input = Linear(in_features, gates * hidden_size, use_bias=use_bias, **options)
        self.hidden = Linear(hidden_size, gates * hidden_size, use_bias=use_bias, **options)


class Recurrent(nnx.Module):
    """What GRU and LSTM share: layers, directions, lengths. They say how a state moves on by one row."""

    gates: int
    """Gates of one unit."""
    parts: tuple[str, ...]
    """Names of the arrays of the state, the output first."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        use_bias: bool = True,
        **options: Any,
    ):
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            check_int(name, size, 1, "Give a positive number.")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.use_bias = bidirectional, use_bias
        self.directions = 2 if bidirectional else 1
        sizes = [input_size] + [self.directions * hidden_size] * (num_layers - 1)
        self.cells = nnx.List(
            [Cell(size, hidden_size, self.gates, use_bias, **options) for size in sizes for _ in range(self.directions)]
        )

    def advance(self, x: jax.Array, h: jax.Array, state: tuple) -> tuple:
        """The state after one row, from what the row and the last output give to the gates."""
        raise NotImplementedError(f"{type(self).__name__} must define advance(x, h, state)")

    def __call__(
        self, x: Float[Array, "*lead T D"], state: Any = None, lengths: Int[Array, "*#lead"] | int | None = None
    ) -> tuple[Float[Array, "*lead T DH"], Any]:
        """`[..., T, D] -> [..., T, directions * H]` and the final state, of the form of `state`.

        `state` None is zeros; its arrays `[..., num_layers * directions, H]` are ordered layer by layer, forward before
        backward. With `lengths`, integers that broadcast to the leading axes, only the first rows of each sequence are
        real: outputs behind them are 0, the state is that after the last real row, and the backward direction starts
        there. What the other rows freeze, NaN included, changes nothing. A length of 0 keeps the given state.
        """
        fail_unless(
            getattr(x, "ndim", 0) >= 2 and x.shape[-1] == self.input_size,
            f"x: expected an array [..., T, {self.input_size}], got {describe_array(x)}. Add the missing axes, or make "
            "the layer with this input_size.",
        )
        *lead, count, _ = x.shape
        rows = jnp.moveaxis(x.reshape(math.prod(lead), count, self.input_size), 1, 0)
        inside = None if lengths is None else _inside(lengths, lead, count)
        given = self._rows_of_state(state, lead, x.dtype)
        if inside is not None:  # 0 * NaN is NaN in the gradient of the kernel
            rows = jnp.where(inside[..., None], rows, 0)
        rows, final = self._layers(rows, given, inside)
        joined = [jnp.stack(part, axis=1).reshape(*lead, len(self.cells), self.hidden_size) for part in final]
        outputs = jnp.moveaxis(rows, 0, 1).reshape(*lead, count, self.directions * self.hidden_size)
        return outputs, self._state(joined)

    def _layers(self, rows: jax.Array, given: list, inside: jax.Array | None) -> tuple[jax.Array, Any]:
        """All layers, from rows `[T, R, D]`; the final states by part, then by cell."""
        final = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(self.directions):
                index = layer * self.directions + direction
                start = tuple(part[:, index] for part in given)
                out, state = self._scan(self.cells[index], rows, start, inside, reverse=direction == 1)
                outputs.append(out)
                final.append(state)
            rows = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1)
        return rows, zip(*final, strict=True)

    def _scan(
        self, cell: Cell, rows: jax.Array, state: tuple, inside: jax.Array | None, reverse: bool
    ) -> tuple[jax.Array, tuple]:
        """One layer in one direction; rows behind the length leave the state alone, so both directions are right."""
        gates = cell.input(rows)
        state = pvary_like(tuple(part.astype(gates.dtype) for part in state), (gates, cell, inside))

        def step(state: tuple, row: tuple) -> tuple[tuple, jax.Array]:
            x, real = row
            new = self.advance(x, cell.hidden(state[0]), state)
            if real is not None:
                new = tuple(jnp.where(real[:, None], a, b) for a, b in zip(new, state, strict=True))
            return new, new[0]

        state, outputs = lax.scan(step, state, (gates, inside), reverse=reverse)
        return outputs if inside is None else jnp.where(inside[..., None], outputs, 0), state

    def _rows_of_state(self, state: Any, lead: list[int], dtype: Any) -> list[jax.Array]:
        """The arrays of the state as `[R, cells, H]`, each broadcast over the leading axes."""
        shape = (*lead, len(self.cells), self.hidden_size)
        rows = (math.prod(lead), *shape[-2:])
        if state is None:
            return [jnp.zeros(rows, dtype) for _ in self.parts]
        given = state if len(self.parts) > 1 else (state,)
        fail_unless(
            isinstance(given, (tuple, list)) and len(given) == len(self.parts),
            f"state: expected the tuple ({', '.join(self.parts)}), got {describe_array(state)}. Pass both arrays.",
            TypeError,
        )
        for name, part in zip(self.parts, given, strict=True):
            tail, front = tuple(jnp.shape(part))[-2:], tuple(jnp.shape(part))[:-2]
            fits = len(front) <= len(lead) and all(
                a in (1, b) for a, b in zip(reversed(front), reversed(lead), strict=False)
            )
            fail_unless(
                tail == shape[-2:] and fits,
                f"state: expected {name} of shape {shape}, [..., num_layers * directions, hidden_size], or one that "
                f"broadcasts to it, got {describe_array(part)}. PyTorch has the layers first: jnp.moveaxis(h, 0, -2).",
            )
        return [jnp.broadcast_to(part, shape).reshape(rows) for part in given]

    def _state(self, parts: list[jax.Array]) -> Any:
        return parts[0] if len(parts) == 1 else tuple(parts)


class GRU(Recurrent):
    """Gated recurrent unit: a state that each row overwrites in part.

        r, z = sigmoid(x W_ir + b_ir + h W_hr + b_hr),  sigmoid(x W_iz + b_iz + h W_hz + b_hz)
        n    = tanh(x W_in + b_in + r (h W_hn + b_hn))
        h'   = (1 - z) n + z h

    Args:
        input_size: D.
        hidden_size: H.
        num_layers: L; each layer reads the outputs of the last.
        bidirectional: whether each layer also runs from the last row to the first; outputs are joined.
        use_bias: whether there are `b_i` and `b_h`.
        options: for the linear layers: `dtype`, `param_dtype`, `precision`, `rngs`, …

    Returns:
        A module with `cells`, layer by layer, forward before backward; each has `input [D, 3 H]` and `hidden
        [H, 3 H]`, gates in the order r, z, n. Call it as `outputs, state = layer(x, state, lengths)`.

    Raises:
        TypeError: if a size is no int, or `lengths` are no integers.
        ValueError: by the call, if shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import nn
        >>> layer = nn.GRU(3, 5, bidirectional=True, rngs=nnx.Rngs(0))
        >>> outputs, state = layer(jnp.ones((2, 4, 3)), lengths=jnp.array([4, 2]))
        >>> outputs.shape, state.shape, bool(jnp.any(outputs[1, 2:]))
        ((2, 4, 10), (2, 2, 5), False)

    Reference:
        Cho et al. (2014), "Learning phrase representations using RNN encoder-decoder for statistical machine
        translation"; with the reset behind the product, as PyTorch and cuDNN have it.
    """

    gates = 3
    parts = ("h",)

    def advance(self, x: jax.Array, h: jax.Array, state: tuple) -> tuple:
        """`h'`, from the gates."""
        (xr, xz, xn), (hr, hz, hn) = jnp.split(x, 3, axis=-1), jnp.split(h, 3, axis=-1)
        z, n = jax.nn.sigmoid(xz + hz), jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn)
        return ((1 - z) * n + z * state[0],)


class LSTM(Recurrent):
    """Long short-term memory: a cell that is written, forgotten and read by gates.

        i, f, o = sigmoid(x W_i + b_i + h W_h + b_h)        each gate with its own columns
        g       = tanh(x W_ig + b_ig + h W_hg + b_hg)
        c'      = f c + i g,        h' = o tanh(c')

    Args:
        input_size: D.
        hidden_size: H, of the outputs too: there is no `proj_size`.
        num_layers: L; each layer reads the outputs of the last.
        bidirectional: whether each layer also runs from the last row to the first; outputs are joined.
        use_bias: whether there are `b_i` and `b_h`.
        options: for the linear layers: `dtype`, `param_dtype`, `precision`, `rngs`, …

    Returns:
        A module with `cells`, layer by layer, forward before backward; each has `input [D, 4 H]` and `hidden
        [H, 4 H]`, gates in the order i, f, g, o. Call it as `outputs, (h, c) = layer(x, (h, c), lengths)`.

    Raises:
        TypeError: if a size is no int, the state no pair, or `lengths` are no integers.
        ValueError: by the call, if shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import nn
        >>> layer = nn.LSTM(3, 5, num_layers=2, rngs=nnx.Rngs(0))
        >>> x = jnp.ones((4, 3))
        >>> outputs, state = layer(x[:3])
        >>> last, (h, c) = layer(x[3:], state)
        >>> last.shape, h.shape, bool(jnp.allclose(last, layer(x)[0][3:]))
        ((1, 5), (2, 5), True)

    Reference:
        Hochreiter, Schmidhuber (1997), "Long short-term memory"; with the forget gate of Gers et al. (2000).
    """

    gates = 4
    parts = ("h", "c")

    def advance(self, x: jax.Array, h: jax.Array, state: tuple) -> tuple:
        """`(h', c')`, from the gates."""
        i, f, g, o = jnp.split(x + h, 4, axis=-1)
        c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _inside(lengths: Any, lead: list[int], count: int) -> jax.Array:
    """Which rows are real, bool `[T, R]`."""
    lengths = jnp.asarray(check_array("lengths", lengths, kind="int"))
    try:
        lengths = jnp.broadcast_to(lengths, tuple(lead))
    except ValueError:
        raise ValueError(
            f"lengths: expected shape {tuple(lead)} as the leading axes of x, or one that broadcasts to it, got "
            f"{describe_array(lengths)}. Give one length per sequence."
        ) from None
    return jnp.arange(count)[:, None] < lengths.reshape(1, -1)
