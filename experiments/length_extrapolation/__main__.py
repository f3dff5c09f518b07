"""`python -m experiments.length_extrapolation`."""

from experiments import command
from experiments.length_extrapolation import report

command.main(report)
