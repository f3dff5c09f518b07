"""Language models read beyond the length that they were trained on, under several position schemes.

Question: trained on rows of 64 bytes, what is the loss of a small language model at each position up to 512, by its
          position scheme? Do scaled rotary frequencies or a window help it, without further training?
Command:  python -m experiments.length_extrapolation
Time:     200 seconds of CPU time.
Result:   the loss in nats per byte at positions 32 to 63 and at 256 to 511 is 2.01 and 2.88 with rotary positions
          (which break after 128), 2.35 and 2.95 with sinusoidal ones (which break at once), 2.16 and 2.18 with ALiBi,
          2.26 and 2.47 with T5, 2.37 and 2.51 without positions. Rotary positions with a window of 64 at test time
          have 2.01 and 2.05. Scaled frequencies without further training do not restore the trained loss.

All models are causal, so one pass over long windows gives the loss at every length up to that of the windows: position
t has the loss of the last byte of a row of t + 1 bytes. The exception is dynamic scaling, which depends on the whole
length.
"""

from experiments.length_extrapolation.experiment import SMALL, Config, run

__all__ = ["SMALL", "Config", "run"]
