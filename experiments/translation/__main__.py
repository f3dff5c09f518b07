"""`python -m experiments.translation`."""

from experiments import command

command.main("translation")
