"""Looking at attention: maps, grids of heads, alignments, strips of text, rollout, entropy, and one page of HTML.

Every function takes plain arrays of weights, queries down and keys across, and words; none knows a model.
matplotlib is loaded when the first picture is drawn, and `html_page`, `rollout` and `head_entropy` never need it.
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
