"""Self-attention in eight steps, with numbers small enough to check by hand.

Question: what exactly happens between three input vectors and three outputs of self-attention?
Command:  python -m experiments.eight_steps
Time:     2 seconds of CPU time.
Result:   keys, queries, values and raw scores are whole numbers. Word 2 gives 0.9820 of its weight to itself, because
          its score 16 is 4 above the next. Its output [2.0000, 7.9640, 0.0540] is close to its value [2, 8, 0].
          Dividing the scores by sqrt(3) flattens the weights (0.9088 instead of 0.9820), so the output mixes more.
"""

from experiments.eight_steps.experiment import Config, Steps, run

__all__ = ["Config", "Steps", "run"]
