"""`python -m experiments.cat_sat`."""

from experiments import command
from experiments.cat_sat import report

command.main(report)
