"""One small language model, one field of its attention rule changed at a time.

Question: which scores, normalizers, positions and windows change the loss of a small language model, by how much, what
          do they cost, and how widely does the model then look?
Command:  python -m experiments.swap_the_rule
Time:     7 minutes of CPU time.
Result:   an unscaled dot product, cosine, l2, normed queries and keys, sinks, entmax, sparsemax and windows of 16 stay
          within 0.03 of the base's 2.27 nats per byte, and three seeds show no difference. Worse are sigmoid
          (+0.07), ALiBi (+0.09), relu (+0.14), additive (+0.14, at 0.56 of the speed), T5 (+0.16), no positions
          (+0.20), learned positions (+0.20), uniform weights (+0.23), a window of 1 (+0.35) and sinusoids (+0.70),
          which are far larger than initial embeddings of size 0.02.

Every variant is `dataclasses.replace(base, ...)`: the same sizes, text, steps, rate and seeds. A seed gives the same
batches and the same initial kernels, so differences from the base are taken seed by seed.

    variants.py     the variants by name
    step_times.py   time of a training step
    experiment.py   config, training, losses, entropies
    drawing.py      the figures
    report.py       the command
"""

from experiments.swap_the_rule.experiment import SMALL, Config, Results, run

__all__ = ["SMALL", "Config", "Results", "run"]
