"""`python -m experiments.cat_sat`."""

from experiments import command

command.main("cat_sat")
