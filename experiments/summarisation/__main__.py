"""`python -m experiments.summarisation`."""

from experiments import command
from experiments.summarisation import report

command.main(report)
