"""`python -m experiments.generation`."""

from experiments import command

command.main("generation")
