"""The text of new tokens is what they add to the prompt's text: decode(prompt + new) after decode(prompt).

transformers#22710, #28776: decoded alone, the first new word loses its space under Metaspace, Llama and WordPiece.
"""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders

from jax_attention import data, decoding
from jax_attention.decoding.continuation import Continuation
from tests.support.successor_model import VOCAB_SIZE, successor_model
from tests.support.tokenizer_definitions import by_decoder, gemma_decoder, llama_decoder, marked, word_level

STORY = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "that", "it", "was", "good", "so", "there"]
STORY += [f"w{i}" for i in range(VOCAB_SIZE - len(STORY))]
"""Words in the order in which the model writes them: "the cat sat" goes on with "on a mat"."""
PROMPT, NEW = [0, 1, 2], " on a mat"
FAMILIES = {
    "metaspace": word_level(marked(STORY), decoders.Metaspace()),
    "llama": word_level(marked(STORY), llama_decoder()),
    "gemma": word_level(marked(STORY), gemma_decoder()),
    "wordpiece": word_level(STORY, decoders.WordPiece()),
    "words": data.Words(tuple(STORY)),
    "transformers": transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(word_level(marked(STORY), llama_decoder()).definition)
    ),
}


def write(tokenizer, prompt=PROMPT, count=3, **options):
    return decoding.generate(successor_model(), prompt, max_new_tokens=count, tokenizer=tokenizer, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_space_before_the_first_new_word_is_kept(family):
    """In `text`, in a stream and in beams, for rows of different lengths; the stop string " on" is found."""
    tokenizer, chunks = FAMILIES[family], []
    assert tokenizer.decode(PROMPT) + NEW == tokenizer.decode([*PROMPT, 3, 4, 5])
    assert tokenizer.decode(PROMPT).strip() + NEW == "the cat sat on a mat"
    assert write(tokenizer, stream=chunks.append, segment=1).text == NEW
    assert "".join(chunk.text for chunk in chunks) == NEW
    assert write(tokenizer, [PROMPT, [2]]).text == [NEW, NEW]
    beams = decoding.beam_search(
        successor_model(), [PROMPT, [0]], num_beams=2, max_new_tokens=3, tokenizer=tokenizer, num_return=1
    )
    assert beams.text == [[NEW, " cat sat on"]]
    for segment in (1, 8):
        out = write(tokenizer, stop_strings=" on", segment=segment)
        assert (out.text, int(out.lengths), bool(out.stopped)) == ("", 1, True)


def test_samples_continue_the_prompt_of_their_row():
    sampler = decoding.sampler(decoding.top_k(1))
    options = dict(sampler=sampler, rng=jax.random.key(0), num_samples=2)
    assert write(FAMILIES["llama"], [PROMPT, [4]], 2, **options).text == [[" on a", " mat and"]] * 2


# --- Byte-level tokens -----------------------------------------------------------------------------------------------

EURO = "€".encode()


@pytest.mark.parametrize("tokenizer", [data.Bytes(), by_decoder()["llama"]], ids=["bytes", "llama"])
def test_a_prompt_that_ends_within_a_character(tokenizer):
    """New tokens complete the character, or do not; an unfinished one at the end is U+FFFD."""
    offset = 0 if tokenizer.vocab_size == 256 else tokenizer.encode("<0x00>")[0]
    ids = lambda content: np.array([byte + offset for byte in content], np.int32)  # noqa: E731
    for end in range(1, 3):
        continuation = Continuation(tokenizer, np.append(tokenizer.encode("a"), ids(EURO[:end])), False)
        assert continuation.text(ids(EURO[end:])) == "€"
        assert continuation.text(ids(EURO[end:] + b"b")) == "€b"
        assert continuation.text(ids(b"")) == ""
    continuation = Continuation(data.Bytes(), np.frombuffer(b"a" + EURO[:2], np.uint8).astype(np.int32), False)
    assert continuation.text(np.array([ord("b")])) == "b"
    # U+FFFD itself is a character like any other.
    continuation = Continuation(data.Bytes(), data.Bytes().encode("a\ufffd"), False)
    assert continuation.text(data.Bytes().encode("\ufffdb")) == "\ufffdb"


def test_ids_of_the_model_that_the_tokenizer_lacks_are_no_text():
    tokenizer = data.Words(tuple(STORY[:20]))
    assert write(tokenizer, [VOCAB_SIZE - 1], 2).text == "the cat"


# --- The end of the prompt is enough ---------------------------------------------------------------------------------

TOKENIZERS = by_decoder() | {
    "bytes": data.Bytes(),
    "subwords": data.Subwords.train(["the cat sat on the mat, naïve café 静夜思 🌍 " * 9], vocab_size=300),
    "characters": data.Characters("aé你🌍\ufffd"),
    "words": data.Words(("a", "b")),
}


def added_text(tokenizer, prompt, new, skip):
    """The definition: decode all of it."""
    before, whole = tokenizer.decode(prompt, skip), tokenizer.decode([*prompt, *new], skip)
    shared = next((i for i in range(len(whole)) if whole[i] != before[i : i + 1]), len(whole))
    return whole[shared:]


@st.composite
def prompts_and_new_ids(draw, size):
    """Ids of all kinds, most of them no byte tokens or bytes of the characters é and €."""
    some = [*range(257, size)] if size > 257 else [*range(size)]
    some += [1 + byte for byte in "é€".encode() if byte + 1 < size]
    ids = st.lists(st.sampled_from(some) | st.integers(0, size - 1), max_size=9)
    return draw(ids), draw(ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.data(), st.booleans())
def test_the_context_of_a_prompt_decides_as_the_whole_prompt_does(name, draw, skip):
    tokenizer = TOKENIZERS[name]
    prompt, new = draw.draw(prompts_and_new_ids(tokenizer.vocab_size))
    context = tokenizer.decoding_context(prompt, skip)
    assert added_text(tokenizer, context, new, skip) == added_text(tokenizer, prompt, new, skip)
    continuation = Continuation(tokenizer, np.array(prompt, np.int32), skip)
    assert continuation.text(np.array(new, np.int32)) == added_text(tokenizer, prompt, new, skip)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.data(), st.booleans())
def test_shown_text_never_changes(name, draw, skip):
    """The stable part of the text so far is a prefix of every later text."""
    tokenizer = TOKENIZERS[name]
    prompt, new = draw.draw(prompts_and_new_ids(tokenizer.vocab_size))
    continuation, new = Continuation(tokenizer, np.array(prompt, np.int32), skip), np.array(new, np.int32)
    final = continuation.text(new)
    for count in range(len(new)):
        stable = continuation.text(new[:count])[: continuation.stable_length(new[:count])]
        assert final.startswith(stable)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_few_ids_of_a_long_prompt_are_decoded(name):
    """The work does not grow with the prompt; only a decoder that sees the whole text needs all of it."""
    tokenizer = TOKENIZERS[name]
    prompt = np.arange(6, 5006) % (tokenizer.vocab_size if tokenizer.vocab_size <= 256 else 256)
    prompt = np.append(prompt, [0] * 4)
    assert len(tokenizer.decoding_context(prompt)) <= (5004 if name == "rewriting" else 4)


# --- Special tokens --------------------------------------------------------------------------------------------------


def with_end(decoder, pre=marked) -> data.Subwords:
    """The story with a special token in place of "a"."""
    tokenizer = word_level(pre(STORY), decoder)
    definition = json.loads(tokenizer.definition)
    special = {"id": 4, "content": pre(STORY)[4], "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return data.Subwords(json.dumps(definition | {"added_tokens": [special | flags]}))


@pytest.mark.parametrize("family", ["llama", "byte-level", "transformers"])
def test_special_tokens_are_left_out_of_text_stream_stop_strings_and_beams(family):
    tokenizer = with_end(llama_decoder())
    if family == "byte-level":
        tokenizer = with_end(decoders.ByteLevel(), lambda words: ["Ġ" + word for word in words])
    if family == "transformers":
        engine = tokenizers.Tokenizer.from_str(tokenizer.definition)
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=engine, additional_special_tokens=["▁a"])
    chunks, options = [], dict(skip_special_tokens=True)
    shown = {"byte-level": "Ġa"}.get(family, " a")
    assert write(tokenizer).text == f" on{shown} mat"
    assert write(tokenizer, stream=chunks.append, segment=1, **options).text == " on mat"
    assert "".join(chunk.text for chunk in chunks) == " on mat"
    assert write(tokenizer, stop_strings="on mat", **options).text == " "
    assert int(write(tokenizer, [4], 2, **options).lengths) == 2
    beams = decoding.beam_search(
        successor_model(), PROMPT, num_beams=2, max_new_tokens=3, tokenizer=tokenizer, **options
    )
    assert beams.text == " on mat"


def test_after_a_prompt_of_special_tokens_the_text_begins_without_a_space():
    """The text is the one that transformers shows."""
    assert write(with_end(llama_decoder()), [4], 2, skip_special_tokens=True).text == "mat and"
    assert write(with_end(llama_decoder()), [4], 2).text == " mat and"


class OnlyIds:
    def decode(self, ids):
        return ""


def test_wrong_use_of_skip_special_tokens():
    with pytest.raises(ValueError, match="skip_special_tokens: expected False without a tokenizer"):
        write(None, skip_special_tokens=True)
    with pytest.raises(TypeError, match=r"decode\(ids, skip_special_tokens=True\).*got OnlyIds"):
        write(OnlyIds(), skip_special_tokens=True)
    with pytest.raises(TypeError, match="skip_special_tokens: expected True or False, got int 1"):
        write(FAMILIES["words"], skip_special_tokens=1)
