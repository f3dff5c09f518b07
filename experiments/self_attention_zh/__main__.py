"""`python -m experiments.self_attention_zh`."""

from experiments import command

command.main("self_attention_zh")
