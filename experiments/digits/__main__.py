"""`python -m experiments.digits`."""

from experiments import command
from experiments.digits import report

command.main(report)
