"""`python -m experiments.batched_product`."""

from experiments import command

command.main("batched_product")
