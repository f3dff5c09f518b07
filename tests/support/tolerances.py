"""The table of all tolerances. Each has a derivation; none is relaxed where it is used.

A sum of n products in a dtype with unit roundoff u has a relative error of about sqrt(n) u (random rounding). With
n <= 64 in every test shape and a handful of such steps, 64 u bounds it: 64 * 6e-8 = 4e-6 in float32 and
64 * 1.1e-16 = 7e-15 in float64; 1e-5 and 1e-12 are the next round numbers above.
"""

FORWARD = {"float32": 1e-5, "float64": 1e-12}
GRADIENT = {"float32": 1e-5, "float64": 1e-11}
PARITY = 1e-6
"""For comparisons with PyTorch in float32, both at the highest precision, with numbers of order one."""
