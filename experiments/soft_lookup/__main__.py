"""`python -m experiments.soft_lookup`."""

from experiments import command
from experiments.soft_lookup import report

command.main(report)
