"""An encoder-decoder of a Hugging Face folder together with the source that it reads: what `generate` continues."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jax_attention import data
from jax_attention.cli import pretrained
from jax_attention.core.checks import fail_unless
from jax_attention.core.text import quote, quote_path
from jax_attention.interop.hf.config import read_config
from jax_attention.interop.hf.token_ids import token_ids

START = "decoder_start_token_id"


@dataclass(frozen=True)
class PretrainedWithSource(pretrained.Pretrained):
    """An opened encoder-decoder; `config` is that of its decoder, which is a language model given the source."""

    source: tuple[int, ...] = ()
    """Ids of the tokens of the source."""
    start: int = 0
    """Id of the token that begins every target."""

    def load(self, step: int | None = None) -> tuple[Any, str]:
        """The decoder given the source, and "-" in place of a step."""
        model, step = super().load(step)
        return model.condition(np.asarray(self.source, np.int32)), step

    def encode(self, text: str) -> np.ndarray:
        """Ids of the beginning of a target, without the special tokens of a whole text."""
        tokenizer = self.tokenizer
        if isinstance(tokenizer, data.Subwords):
            tokenizer = dataclasses.replace(tokenizer, special_tokens=False)
        return np.concatenate([[self.start], tokenizer.encode(text)]).astype(np.int32)


def open_with_source(folder: Path, source: str) -> PretrainedWithSource:
    """Open an encoder-decoder to write a target for a source."""
    if not pretrained.is_pretrained(folder) or not read_config(folder)[0].is_encoder_decoder:
        raise ValueError(
            f"source: expected an encoder-decoder with it, got {quote_path(folder)}, which reads one text. Give it as "
            "--prompt."
        )
    opened = pretrained.open_pretrained(folder, encoder_decoder=True)
    start = token_ids(folder, (START,)).get(START)
    fail_unless(type(start) is int, f"{pretrained.CONFIG}: expected {START} to be an id, got {quote(start)}.")
    ids = opened.tokenizer.encode(source)
    limit = read_config(folder)[1].encoder.context
    fail_unless(
        0 < len(ids) <= limit, f"source: expected 1 to {limit} tokens, the context of the encoder, got {len(ids)}."
    )
    return PretrainedWithSource(**vars(opened), source=tuple(map(int, ids)), start=start)
