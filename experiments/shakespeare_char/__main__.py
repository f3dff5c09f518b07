"""`python -m experiments.shakespeare_char`."""

from experiments import command
from experiments.shakespeare_char import report

command.main(report)
