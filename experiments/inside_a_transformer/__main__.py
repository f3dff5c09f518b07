"""`python -m experiments.inside_a_transformer`."""

from experiments import command

command.main("inside_a_transformer")
