"""`interop.difference`: four numbers with known answers; NaN, infinities, and errors of shapes and dtypes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jax_attention import interop

INF, NAN = np.inf, np.nan
DTYPES = [np.float32, np.float64, np.float16, np.dtype(jnp.bfloat16)]


def test_known_numbers():
    actual = interop.difference(np.float32([3, 4.5]), np.float32([3, 4]))
    assert actual.max_abs == 0.5
    assert actual.max_rel == 0.125
    assert actual.ulps == 0.5 / 2**-21
    assert actual.cosine == pytest.approx(27 / (5 * np.hypot(3, 4.5)))


def test_equal_arrays_are_equal_infinities_and_zeros_too():
    x = np.float32([1, -INF, INF, 0, -0.0])
    for a, b in ((x, x), (x[3:], -x[3:]), (x[:0], x[:0]), (np.float32(2), np.float32(2))):
        assert interop.difference(a, b) == (0, 0, 0, 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_ulp_is_the_next_number_of_the_dtype_of_found(dtype):
    bits = {2: np.int16, 4: np.int32, 8: np.int64}[np.dtype(dtype).itemsize]

    def one_up(x):
        return (x.view(bits) + bits(1)).view(dtype)

    smallest = np.array([0.0]).astype(dtype)
    for x in (np.array([1.5]).astype(dtype), np.array([-3.25]).astype(dtype), smallest):
        actual = interop.difference(one_up(x), x)
        assert actual.ulps == 1
        assert interop.difference(one_up(x), x.astype(np.float64)) == actual


def test_fractions_of_an_ulp_against_a_wider_dtype():
    assert interop.difference(np.float32([1]), np.float64([1 + 2**-24])).ulps == 0.5


@pytest.mark.parametrize(("a", "b"), [([INF], [1.0]), ([1.0], [INF]), ([INF], [-INF])])
def test_an_infinity_alone_is_infinitely_far(a, b):
    actual = interop.difference(np.float32([*a, 2]), np.float32([*b, 2]))
    assert actual[:3] == (INF, INF, INF)
    assert actual.cosine == 1  # over the elements that are finite in both


@pytest.mark.parametrize(("a", "b"), [([NAN], [1.0]), ([1.0], [NAN]), ([NAN], [NAN])])
def test_nan_equals_nothing(a, b):
    actual = interop.difference(np.float32([*a, 2]), np.float32([*b, 2]))
    assert all(np.isnan(actual))
    assert not actual.max_abs <= INF
    assert str(actual) == "not comparable: NaN"


def test_zero_against_something():
    assert interop.difference(np.float32([0.5, 0]), np.float32([0, 0])) == (0.5, INF, 2**23, 0)
    assert interop.difference(np.float32([0, 0.25]), np.float32([0.25, 0])).cosine == 0
    assert interop.difference(np.float32([2]), np.float32([-2])).cosine == -1


def test_what_rounding_explains_of_a_zero_is_no_relative_distance():
    """Terms cancel to 0 on one side and to their last digit on the other; both are the same result."""
    actual, expected = np.float32([1e-7, 0, 1]), np.float32([0, 2e-7, 1])
    assert interop.difference(actual, expected)[1] == INF
    assert interop.difference(actual, expected, rounding=1e-6) == (np.float64(expected[1]), 0, 0, 1)
    assert interop.difference(actual, expected, rounding=1.5e-7)[1] == 1, "one of the two is farther than rounding"
    assert interop.difference(np.float32([0.5, 0]), np.float32([0, 0]), rounding=0.25)[:2] == (0.5, INF)
    # An expected number that is larger than its rounding keeps its relative distance.
    assert interop.difference(np.float32([1.5]), np.float32([1]), rounding=0.75)[:2] == (0.5, 0.5)


def test_numbers_whose_squares_overflow_have_a_cosine():
    assert interop.difference(np.float64([1e300, 1e300]), np.float64([1e300, 0])).cosine == pytest.approx(0.5**0.5)


def test_arrays_of_jax_and_tensors():
    expected = interop.difference(np.float32([1, 2]), np.float32([1, 3]))
    assert interop.difference(jnp.array([1.0, 2.0]), torch.tensor([1.0, 3.0], requires_grad=True)) == expected
    assert interop.difference(torch.tensor([1.0]).bfloat16(), jnp.ones(1, jnp.bfloat16)) == (0, 0, 0, 1)


def test_other_shapes_and_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"actual: expected the shape of expected, \(3,\), got \(1, 3\). Reshape"):
        interop.difference(np.ones((1, 3)), np.ones(3))
    with pytest.raises(TypeError, match=r"expected: expected floating-point numbers, got int64\[3\]. Cast"):
        interop.difference(np.ones(3), np.ones(3, np.int64))
