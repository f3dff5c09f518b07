"""`python -m experiments.swap_the_rule`."""

from experiments import command

command.main("swap_the_rule")
