"""`python -m experiments.long_range`."""

from experiments import command
from experiments.long_range import report

command.main(report)
