"""`python -m experiments.self_attention_zh`."""

from experiments import command
from experiments.self_attention_zh import report

command.main(report)
