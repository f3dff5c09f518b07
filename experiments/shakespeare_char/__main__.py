"""`python -m experiments.shakespeare_char`."""

from experiments import command

command.main("shakespeare_char")
