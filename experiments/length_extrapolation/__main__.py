"""`python -m experiments.length_extrapolation`."""

from experiments import command

command.main("length_extrapolation")
