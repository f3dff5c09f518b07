"""Two tasks with every attention rule: accuracy, attention weights, and the cost of the rule.

Question: a recurrent encoder-decoder reverses 8 tokens, and recalls the value after a key. With which attention rules
          does it learn this, and why not with the others?
Command:  python -m experiments.rules_side_by_side
Time:     9 minutes of CPU time.
Result:   concat gives every query the same weights (to 4e-8) and reverses 0.38 of the rows; without attention it is
          0.32, with dot, additive, general and location 1.00. The cosine's weights are too flat at scale 1 (0.56), and
          even flatter divided by sqrt(d) (0.41); at scale 10 it reverses 1.00. In recall dot is right in 1.00 from
          each seed, additive from one of three; location has 0.70, without attention it is 0.77.

    rules.py        models and scores by the name of a rule
    tasks.py        training and evaluation on both tasks
    layer.py        attention as a layer (`nn.Attn`) on vectors
    cost.py         time and memory of a rule
    experiment.py   all of them together
    drawing.py      the figures
    report.py       the command
"""

from experiments.rules_side_by_side.experiment import SMALL, Config, Results, run

__all__ = ["SMALL", "Config", "Results", "run"]
