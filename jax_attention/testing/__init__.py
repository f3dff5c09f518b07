"""A kit for rules of your own: `check_rule` runs one through every promise of `attend`, and says what it breaks."""

from jax_attention.testing.check_rule import check_rule
from jax_attention.testing.report import CheckResult, RuleReport

__all__ = ["CheckResult", "RuleReport", "check_rule"]
