"""`python -m experiments.generation`."""

from experiments import command
from experiments.generation import report

command.main(report)
