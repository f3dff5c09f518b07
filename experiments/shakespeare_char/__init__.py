"""A character-level Transformer on tiny Shakespeare, in nanoGPT's setting for a CPU.

Question: do the library's model, optimizer and loop reach the validation loss of nanoGPT's README, 1.88?
Command:  python -m experiments.shakespeare_char --text input.txt --out experiments/shakespeare_char
Time:     8 minutes of CPU time.
Result:   yes with rotary positions: 1.792, 1.777, 1.789 (seeds 0, 1, 2). With learned positions, as nanoGPT has them,
          1.905, 1.907, 1.909: 0.025 above its figure, but measured over the whole validation split.

The setting: 4 layers, 4 heads, width 128, context 64, no biases, no dropout, tied output layer. Positions are rotary,
or learned; the latter is nanoGPT's model. Training takes 2000 steps of 12 windows by AdamW with betas (0.9, 0.99),
decay 0.1 on matrices, a rate from 1e-3 to 1e-4 by a cosine after 100 steps of warmup, and gradients clipped to norm 1.
It uses the first 90 % of the text. The loss is over all of the last 10 %, in windows of 64 characters that do not
overlap (nanoGPT averages over 20 random batches of such windows).
"""

from experiments.shakespeare_char.experiment import SMALL, Config, run

__all__ = ["SMALL", "Config", "run"]
