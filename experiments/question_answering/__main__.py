"""`python -m experiments.question_answering`."""

from experiments import command
from experiments.question_answering import report

command.main(report)
