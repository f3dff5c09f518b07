"""`python -m experiments.translation`."""

from experiments import command
from experiments.translation import report

command.main(report)
