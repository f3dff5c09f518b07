"""`python -m experiments.digits`."""

from experiments import command

command.main("digits")
