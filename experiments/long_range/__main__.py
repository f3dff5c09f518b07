"""`python -m experiments.long_range`."""

from experiments import command

command.main("long_range")
