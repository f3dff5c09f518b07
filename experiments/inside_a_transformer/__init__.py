"""What happens inside a Transformer between a sentence and its next character?

Question: which shape does every stage have, does the order of words reach the output, why do blocks add their input,
          does anything come from later words, and does a small trained model continue sentences sensibly?
Command:  python -m experiments.inside_a_transformer
Time:     91 seconds of CPU time.
Result:   shapes go from [6] to [6, 768] to [1, 768] to [1, 50000]. Two swapped words change the last row under every
          position scheme, and not without one. Over 32 layers the gradient shrinks to 8e-9 without residual and norm;
          the norm alone prevents this. Derivatives with respect to later inputs are exactly 0. A trained model ends 29
          of 29 new sentences rightly, the same model without attention to earlier characters 0 to 4.

    config.py       all sizes
    stages.py       E1, E3, E6: tokens, heads, the full pass of a random model
    order.py        E2: position schemes
    depth.py        E4: gradient norms by depth
    causality.py    E5: derivatives with respect to earlier and later inputs
    weather.py      a small text
    characters.py   E6: a model trained on the text
    experiment.py   all of them together
    drawing.py      the figures
    report.py       the command
"""

from experiments.inside_a_transformer.config import SMALL, Config
from experiments.inside_a_transformer.experiment import Results, run

__all__ = ["SMALL", "Config", "Results", "run"]
