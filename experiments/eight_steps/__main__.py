"""`python -m experiments.eight_steps`."""

from experiments import command

command.main("eight_steps")
