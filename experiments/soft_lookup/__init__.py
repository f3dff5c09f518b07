"""Attention as a dictionary that answers with a mixture: a picture, and a shop.

Question: what do query, key and value mean, and what does a query change?
Command:  python -m experiments.soft_lookup
Time:     3 seconds of CPU time.
Result:   the query "living things" gives person the weight 0.73 and tree 0.27 (0.17 and 0.31 by saliency alone). In the
          shop the title that matches the query gets 0.93, "high heels" 0.01.

Every number comes from `attend`. The features are chosen by hand for this page, not learned: three for each thing in
the picture (alive, built, weather), each between 0 and 1; six words of the shop, 1 if the word is true of a title. The
shopper wants running, breathable, shoe, and no heels (-1). `sharpness` multiplies the scores; it is chosen too, where
training would choose the length of the queries.
"""

from experiments.soft_lookup.experiment import Config, Lookups, run

__all__ = ["Config", "Lookups", "run"]
