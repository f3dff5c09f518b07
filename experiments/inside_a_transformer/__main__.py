"""`python -m experiments.inside_a_transformer`."""

from experiments import command
from experiments.inside_a_transformer import report

command.main(report)
