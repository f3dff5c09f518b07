"""The table of all tolerances. Each has a derivation; none is relaxed where it is used.

A sum of n products in a dtype with unit roundoff u has a relative error of about sqrt(n) u (random rounding). With
n <= 64 in every test shape and a handful of such steps, 64 u bounds it: 64 * 6e-8 = 4e-6 in float32 and
64 * 1.1e-16 = 7e-15 in float64; 1e-5 and 1e-12 are the next round numbers above.
"""

FORWARD = {"float32": 1e-5, "float64": 1e-12}
GRADIENT = {"float32": 1e-5, "float64": 1e-11}
PARITY = 1e-6
"""For comparisons with PyTorch in float32, both at the highest precision, with numbers of order one."""


def of_exponentials(size: float) -> float:
    """For weights `exp(x) / sum exp(x)` in float32, of numbers x that are made from logarithms up to `size`.

    An error dx of x changes its exponential by the factor exp(dx). Four roundings of numbers up to 2 size (features of
    query and key, their sum, the difference to the row maximum) make dx = sqrt(4) * 2 size * u = 2.4e-7 size.
    """
    return FORWARD["float32"] + 2.5e-7 * size
