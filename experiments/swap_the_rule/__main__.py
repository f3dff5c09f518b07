"""`python -m experiments.swap_the_rule`."""

from experiments import command
from experiments.swap_the_rule import report

command.main(report)
