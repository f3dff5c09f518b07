"""Questions about a passage: does a model with attention answer better than one without?

Question: a passage says which instrument each of two or three people plays, and the question asks for one of them.
          Which of three models answer rightly about new passages, and about new pairs of person and instrument?
Command:  python -m experiments.question_answering
Time:     5 minutes of CPU time.
Result:   the share of right answers about new passages is 0.579 without attention, 0.986 with additive attention and
          0.423 for the Transformer; a guess among the instruments of the passage is right in 0.420. About new pairs
          the shares are 0.059, 0.939 and 0.409: without attention, the model memorises the pairs of training. With
          additive attention the largest weight is on the answer in 0.988 and 0.963 of the passages.

    texts.py        passages as rows of words; accuracy without reading
    answer_maps.py  weights of the step that answers
    experiment.py   config, training, answers
    drawing.py      the figures
    report.py       the command
"""

from experiments.question_answering.experiment import SMALL, Config, Results, run

__all__ = ["SMALL", "Config", "Results", "run"]
