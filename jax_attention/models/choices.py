"""The names that the fields of a config choose among."""

from __future__ import annotations

from typing import Literal

Position = Literal["learned", "sinusoidal", "sinusoidal_half", "rotary", "alibi", "t5", "none"]
Norm = Literal["layer", "rms"]
NormPlace = Literal["pre", "post", "sandwich", "after", "parallel"]
BiasPlace = Literal["qkv", "out", "feed_forward", "norm"]
Remat = Literal["none", "dots", "full"]
Cell = Literal["gru", "lstm"]
Dtype = Literal["float32", "bfloat16", "float16", "float64"]
