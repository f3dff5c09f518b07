"""`python -m experiments.rules_side_by_side`."""

from experiments import command
from experiments.rules_side_by_side import report

command.main(report)
