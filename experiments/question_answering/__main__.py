"""`python -m experiments.question_answering`."""

from experiments import command

command.main("question_answering")
