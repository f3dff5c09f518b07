"""`python -m experiments.batched_product`."""

from experiments import command
from experiments.batched_product import report

command.main(report)
