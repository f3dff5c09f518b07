"""GRU and LSTM with the equations of PyTorch: one product and one scan over the rows for each layer and direction.

The product of all rows with the input kernel is computed before the scan, which then has one product per row only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jax_attention.core.checks import broadcasts, check_int, check_lengths, describe_array, fail_unless
from jax_attention.core.explicit_axes import batch_sharding, reshard
from jax_attention.core.numerics import pvary_like
from jax_attention.nn.linear import Linear
from jax_attention.nn.short_repr import ShortRepr

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class Cell(ShortRepr, nnx.Module):
    """The parameters of one layer in one direction: two linear layers to the concatenated gates."""

    def __init__(self, in_features: int, hidden_size: int, gates: int, use_bias: bool, **options: Any):
        bound = hidden_size**-0.5

        # PyTorch's initial values: uniform in +-1 / sqrt(H), kernels and biases alike.
        def init(key: jax.Array, shape: tuple[int, ...], dtype: Any, **sharding: Any) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound, **sharding)

        options = {"kernel_init": init, "bias_init": init, **options}
        self.input = Linear(in_features, gates * hidden_size, use_bias=use_bias, **options)
        self.hidden = Linear(hidden_size, gates * hidden_size, use_bias=use_bias, **options)


class Recurrent(ShortRepr, nnx.Module):
    """Base of GRU and LSTM: layers, directions and lengths. Subclasses define the step from one row to the next."""

    gates: int
    """Number of gates of one unit."""
    state_names: tuple[str, ...]
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
        """The state after one row, from the products of the row (x) and of the last output (h) with the kernels."""
        raise NotImplementedError(f"{type(self).__name__} must define advance(x, h, state)")

    def __call__(
        self, x: Float[Array, "*batch T D"], state: Any = None, lengths: Int[Array, "*#batch"] | int | None = None
    ) -> tuple[Float[Array, "*batch T DH"], Any]:
        """Outputs `[..., T, directions * H]` and the final state, of the form of `state`.

        `state` None is zeros; its arrays `[..., num_layers * directions, H]` are ordered layer by layer, forward before
        backward. With `lengths`, integers that broadcast to the batch dimensions, only the first rows of each sequence
        are real: outputs after them are 0, the final state is the state after the last real row, and the backward
        direction starts there. The numbers in the other rows, NaN included, change nothing. A length of 0 keeps the
        initial state.
        """
        fail_unless(
            getattr(x, "ndim", 0) >= 2 and x.shape[-1] == self.input_size,
            f"x: expected an array [..., T, {self.input_size}], got {describe_array(x)}. Add the missing axes, or make "
            "the layer with this input_size.",
        )
        *batch, count, _ = x.shape
        sequences = x.reshape(math.prod(batch), count, self.input_size)
        rows, sharding = jnp.moveaxis(sequences, 1, 0), batch_sharding(2, sequences)
        is_real = None if lengths is None else _is_real(lengths, batch, count)
        initial = [reshard(array, sharding) for array in self._initial_state(state, batch, x.dtype)]
        if is_real is not None:  # 0 * NaN is NaN in the gradient of the kernel
            rows = jnp.where(is_real[..., None], rows, 0)
        rows, final = self._run_layers(rows, initial, is_real)
        arrays = [jnp.stack(states, axis=1).reshape(*batch, len(self.cells), self.hidden_size) for states in final]
        outputs = jnp.moveaxis(rows, 0, 1).reshape(*batch, count, self.directions * self.hidden_size)
        return outputs, arrays[0] if len(arrays) == 1 else tuple(arrays)

    def _run_layers(self, rows: jax.Array, initial: list, is_real: jax.Array | None) -> tuple[jax.Array, Any]:
        """Outputs of the last layer from rows `[T, R, D]`, and the final states by array of the state, then by cell."""
        final = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(self.directions):
                index = layer * self.directions + direction
                start = tuple(array[:, index] for array in initial)
                out, state = self._scan(self.cells[index], rows, start, is_real, reverse=direction == 1)
                outputs.append(out)
                final.append(state)
            rows = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1)
        return rows, zip(*final, strict=True)

    def _scan(
        self, cell: Cell, rows: jax.Array, state: tuple, is_real: jax.Array | None, reverse: bool
    ) -> tuple[jax.Array, tuple]:
        """Outputs and final state of one layer in one direction.

        Rows that are not real leave the state alone: the backward direction meets the padding first.
        """
        gates = cell.input(rows)
        state = pvary_like(tuple(array.astype(gates.dtype) for array in state), (gates, cell, is_real))

        def step(state: tuple, row: tuple) -> tuple[tuple, jax.Array]:
            x, is_real = row
            new = self.advance(x, cell.hidden(state[0]), state)
            if is_real is not None:
                new = tuple(jnp.where(is_real[:, None], a, b) for a, b in zip(new, state, strict=True))
            return new, new[0]

        state, outputs = lax.scan(step, state, (gates, is_real), reverse=reverse)
        return outputs if is_real is None else jnp.where(is_real[..., None], outputs, 0), state

    def _initial_state(self, state: Any, batch: list[int], dtype: Any) -> list[jax.Array]:
        """The arrays of the state as `[R, cells, H]`, broadcast over all R sequences; zeros for None."""
        shape = (*batch, len(self.cells), self.hidden_size)
        rows = (math.prod(batch), *shape[-2:])
        if state is None:
            return [jnp.zeros(rows, dtype) for _ in self.state_names]
        arrays = state if len(self.state_names) > 1 else (state,)
        fail_unless(
            isinstance(arrays, (tuple, list)) and len(arrays) == len(self.state_names),
            f"state: expected the tuple ({', '.join(self.state_names)}), got {describe_array(state)}. "
            "Pass both arrays.",
            TypeError,
        )
        for name, array in zip(self.state_names, arrays, strict=True):
            array_shape = tuple(jnp.shape(array))
            fail_unless(
                array_shape[-2:] == shape[-2:] and broadcasts(array_shape[:-2], tuple(batch)),
                f"state: expected {name} of shape {shape}, [..., num_layers * directions, hidden_size], or one that "
                f"broadcasts to it, got {describe_array(array)}. PyTorch has the layers first: jnp.moveaxis(h, 0, -2).",
            )
        return [jnp.broadcast_to(array, shape).reshape(rows) for array in arrays]


class GRU(Recurrent):
    """Gated recurrent unit: a state that each row overwrites in part.

        r, z = sigmoid(x W_ir + b_ir + h W_hr + b_hr),  sigmoid(x W_iz + b_iz + h W_hz + b_hz)
        n    = tanh(x W_in + b_in + r (h W_hn + b_hn))
        h'   = (1 - z) n + z h

    Args:
        input_size: D.
        hidden_size: H.
        num_layers: L; each layer reads the outputs of the layer before.
        bidirectional: whether each layer also runs from the last row to the first; outputs are concatenated.
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
        translation"; with the reset gate applied after the product with `W_hn`, as in PyTorch and cuDNN.
    """

    gates = 3
    state_names = ("h",)

    def advance(self, x: jax.Array, h: jax.Array, state: tuple) -> tuple:
        """The new state `(h',)` from the gates r, z and n."""
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
        hidden_size: H, also the size of the outputs: there is no `proj_size`.
        num_layers: L; each layer reads the outputs of the layer before.
        bidirectional: whether each layer also runs from the last row to the first; outputs are concatenated.
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
    state_names = ("h", "c")

    def advance(self, x: jax.Array, h: jax.Array, state: tuple) -> tuple:
        """The new state `(h', c')` from the gates i, f, g and o."""
        i, f, g, o = jnp.split(x + h, 4, axis=-1)
        c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _is_real(lengths: Any, batch: list[int], count: int) -> jax.Array:
    """Whether row t of sequence r is within its length, bool `[T, R]`."""
    lengths = jnp.asarray(check_lengths("lengths", lengths), jnp.int32)
    try:
        lengths = jnp.broadcast_to(lengths, tuple(batch))
    except ValueError:
        raise ValueError(
            f"lengths: expected shape {tuple(batch)} as the batch dimensions of x, or one that broadcasts to it, got "
            f"{describe_array(lengths)}. Give one length per sequence."
        ) from None
    return jnp.arange(count, dtype=jnp.int32)[:, None] < lengths.reshape(1, -1)
