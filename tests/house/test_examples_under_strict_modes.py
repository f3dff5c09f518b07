"""Every example in a docstring runs under JAX's strict modes: so does every public name, as each has one.

Forward and backward, as compiled programs: tests/strict_modes.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib

import pytest

from tests.house.test_public_names import DOCTESTED
from tests.strict_modes.modes import MODES
from tests.support.tiers import slow_except

NARROW = ("strict promotion", "rank raise", "debug_nans", "debug_infs")
WIDE = ("rank raise", "x64")
"""Not strict promotion: with x64 the arrays that an example makes are float64, and its parameters float32."""

EXCLUDES = "The result holds -inf for what it excludes."
EAGER = "Called outside of jit, where the comparison of scores with -inf is an operation by itself."
EXCEPT = {
    "core.numerics": ("debug_infs", "Its guards are shown on -inf."),
    "decoding.beams.beam_search": ("debug_infs", "Beams that do not exist yet have the score -inf."),
    "decoding.history": ("debug_infs", EXCLUDES),
    "decoding.history_transforms": ("debug_infs", EXCLUDES),
    "decoding.logit_transforms.min_p": ("debug_infs", EXCLUDES),
    "decoding.logit_transforms.top_k": ("debug_infs", EXCLUDES),
    "decoding.logit_transforms.top_p": ("debug_infs", EXCLUDES),
    "mods.bias.bias": ("debug_infs", "The bias of the example is -inf."),
    "normalizers": ("debug_infs", EAGER),
    "positions.tables.learned": ("debug_nans", "Positions outside of the table give NaN, as nothing can be raised."),
    "training.optimizers.make_optimizer": ("debug_nans", "The gradient of the example is NaN."),
    "training.optimizers.refuse_nonfinite": ("debug_infs", "The gradient of the example is inf."),
}
"""Names of functions, modules or packages whose examples cannot run under a mode, and why."""
QUICK = (
    "jax_attention.attention.attend",
    "jax_attention.decoding.logit_transforms",
)


class Errors(doctest.DocTestRunner):
    """A runner that collects exceptions; printed numbers may have other dtypes under a mode."""

    def __init__(self):
        super().__init__(verbose=False)
        self.errors: list[str] = []

    def report_start(self, out, test, example):
        pass

    def report_success(self, out, test, example, got):
        pass

    def report_failure(self, out, test, example, got):
        pass

    def report_unexpected_exception(self, out, test, example, exc_info):
        if example.exc_msg is None:
            self.errors.append(f"{test.name}: {example.source.strip()}: {exc_info[0].__name__}: {exc_info[1]}")


def excepted_modes(name):
    """The modes that the name, or a module or package that it belongs to, is excepted from."""
    return ", ".join(modes for key, (modes, _) in EXCEPT.items() if f"{name}.".startswith(f"{key}."))


@pytest.mark.parametrize("modes", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("name", slow_except(QUICK, DOCTESTED))
def test_examples_run_under_strict_modes(name, modes):
    module = importlib.import_module(name)
    runner, run = Errors(), 0
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__):
        excepted = excepted_modes(test.name.removeprefix("jax_attention."))
        with contextlib.ExitStack() as stack:
            for mode in modes:
                if mode not in excepted:
                    stack.enter_context(MODES[mode]())
            run += runner.run(test, out=lambda text: None).attempted
    assert run > 0
    assert runner.errors == []


def test_exceptions_exist():
    names = {
        test.name.removeprefix("jax_attention.")
        for name in DOCTESTED
        for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name)
    }
    assert [key for key in EXCEPT if not any(f"{name}.".startswith(f"{key}.") for name in names)] == []
