"""Pictures of attention weights: heat maps, grids of heads, alignments, text heat maps, rollout, entropy, an HTML page.

Every function takes arrays of weights (rows are queries, columns are keys) and words; none needs a model. matplotlib is
loaded when the first picture is drawn; `html_page`, `rollout` and `head_entropy` never need it.
"""

from jax_attention.viz.alignment import alignment_map
from jax_attention.viz.entropy import entropy_map, head_entropy
from jax_attention.viz.head_grid import head_grid
from jax_attention.viz.heat_map import heat_map
from jax_attention.viz.rollout import rollout
from jax_attention.viz.save import save
from jax_attention.viz.text_heatmap import text_heatmap
from jax_attention.viz.web_page import html_page

__all__ = [
    "alignment_map",
    "entropy_map",
    "head_entropy",
    "head_grid",
    "heat_map",
    "html_page",
    "rollout",
    "save",
    "text_heatmap",
]
