"""`python -m experiments.soft_lookup`."""

from experiments import command

command.main("soft_lookup")
