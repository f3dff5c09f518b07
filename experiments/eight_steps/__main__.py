"""`python -m experiments.eight_steps`."""

from experiments import command
from experiments.eight_steps import report

command.main(report)
