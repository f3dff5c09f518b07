"""`python -m experiments.rules_side_by_side`."""

from experiments import command

command.main("rules_side_by_side")
