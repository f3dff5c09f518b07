"""The text that new tokens add to a prompt."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from jax_attention.cache import EMPTY
from jax_attention.data.tokenizers import Tokenizer
from jax_attention.decoding.prompts import Prompts

if TYPE_CHECKING:
    from jaxtyping import Int

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""Character that decoders write for the first bytes of a character whose last bytes are still to come."""


class Continuation:
    """Text of the tokens after one prompt.

        text(tokens) = decode(prompt + tokens) after the characters that it shares with decode(prompt)

    Decoding the new tokens alone would lose the space before the first word where the tokenizer leaves it out at the
    beginning of a text (Metaspace, Llama, WordPiece; transformers#22710, #28776), and bytes that complete the last
    character of the prompt. Where a tokenizer of this library knows which of the prompt's tokens matter, only those are
    decoded.
    """

    def __init__(self, tokenizer: Any, prompt: Int[np.ndarray, "T"], skip_special_tokens: bool):
        self._tokenizer, self._skip = tokenizer, skip_special_tokens
        self._decode: Callable[[Any], str] = tokenizer.decode
        if skip_special_tokens:
            self._decode = partial(tokenizer.decode, skip_special_tokens=True)
        if isinstance(tokenizer, Tokenizer):
            # A model may have ids that its tokenizer does not have, such as a start token; they stand for no text.
            prompt = np.asarray(tokenizer.decoding_context(prompt[prompt < tokenizer.vocab_size], self._skip), np.int32)
        self._context, self._context_text = prompt, self._decode(prompt)

    def text(self, tokens: Int[np.ndarray, "N"]) -> str:
        """The text that `tokens` add to the prompt."""
        whole = self._decode(self._with_context(tokens))
        return whole[self._shared_length(whole) :]

    def stable_length(self, tokens: Int[np.ndarray, "N"]) -> int:
        """How many characters of `text(tokens)` stay as they are whatever tokens follow."""
        ids = self._with_context(tokens)
        whole = self._decode(ids)
        if isinstance(self._tokenizer, Tokenizer) and self._tokenizer.token_bytes is None:
            stable = self._tokenizer.stable_prefix(self._tokenizer.checked(ids, self._skip))
        else:
            stable = whole.rstrip(INCOMPLETE)
        return max(0, len(stable) - self._shared_length(whole))

    def _with_context(self, tokens: Int[np.ndarray, "N"]) -> Int[np.ndarray, "C"]:
        return np.concatenate([self._context, tokens])

    def _shared_length(self, whole: str) -> int:
        """How many characters at the beginning are those of the prompt; a last unfinished one may become another."""
        context = self._context_text
        if whole.startswith(context):
            return len(context)
        return next((i for i, (a, b) in enumerate(zip(context, whole, strict=False)) if a != b), len(whole))


def continuations(
    tokenizer: Any, prompts: Prompts, batch_shape: tuple[int, ...], skip_special_tokens: bool
) -> dict[tuple[int, ...], Continuation]:
    """One `Continuation` for each row of a batch, which may have more batch dimensions in front than its prompts."""
    extra = len(batch_shape) - np.ndim(prompts.lengths)
    prompt_of = {
        row: Continuation(tokenizer, prompts.tokens[row][prompts.positions[row] != EMPTY], skip_special_tokens)
        for row in np.ndindex(*batch_shape[extra:])
    }
    return {row: prompt_of[row[extra:]] for row in np.ndindex(*batch_shape)}
