"""`python -m experiments.summarisation`."""

from experiments import command

command.main("summarisation")
