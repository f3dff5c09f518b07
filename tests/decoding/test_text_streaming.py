"""Stop strings cut the text exactly, and streams break neither a character nor a stop string, whatever the segment."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jax_attention import decoding
from tests.support.successor_model import CALL_COUNTS, LetterTokenizer, letter_ids, successor_model

ALPHABET = "bcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"


def write(prompt="a", count=30, **options):
    options = {"tokenizer": LetterTokenizer()} | options
    return decoding.generate(successor_model(), letter_ids(prompt), max_new_tokens=count, **options)


@pytest.mark.parametrize("segment", [1, 2, 7, 100])
@pytest.mark.parametrize(
    ("stops", "text", "length"),
    [
        ("hij", "bcdefg", 9),
        (("hij", "gh"), "bcdef", 7),
        (("ij", "hijk"), "bcdefgh", 9),
        ("b", "", 1),
        (("nowhere",), ALPHABET[:30], 30),
        ("zab", "bcdefghijklmnopqrstuvwxy", 27),
    ],
)
def test_text_ends_before_the_stop_string_and_tokens_after_it(stops, text, length, segment):
    """The token that completes a stop string first ends the row, wherever segments end."""
    out = write(stop_strings=stops, segment=segment)
    assert out.text == text
    assert int(out.lengths) == length
    assert bool(out.stopped) == (length < 30)
    assert LetterTokenizer().decode(np.asarray(out.tokens)[:length]) == ALPHABET[:length]
    assert not np.asarray(out.tokens)[length:].any()
    assert not np.asarray(out.logprobs)[length:].any()


def test_rows_stop_independently():
    out = decoding.generate(
        successor_model(),
        [letter_ids("a"), letter_ids("xy"), letter_ids("c")],
        max_new_tokens=10,
        stop_strings=("ef", "ab"),
        stop_tokens=letter_ids("h"),
        tokenizer=LetterTokenizer(),
        segment=3,
    )
    assert out.text == ["bcd", "z", "d"]
    np.testing.assert_array_equal(out.lengths, [5, 3, 3])
    assert out.stopped.all()


def test_text_without_stop_strings_and_nested_lists():
    assert write(count=4).text == "bcde"
    prompts = np.array([[[0], [1]], [[2], [3]], [[4], [5]]])
    out = decoding.generate(successor_model(), prompts, max_new_tokens=2, tokenizer=LetterTokenizer())
    assert out.text == [["bc", "cd"], ["de", "ef"], ["fg", "gh"]]
    assert decoding.generate(successor_model(), prompts, max_new_tokens=2).text is None


@pytest.mark.parametrize("segment", [None, 1, 4])
@pytest.mark.parametrize("stops", [(), ("hij", "mno")])
def test_chunks_join_to_the_result(segment, stops):
    chunks = []
    out = write(stop_strings=stops, stream=chunks.append, segment=segment)
    assert "".join(chunk.text for chunk in chunks) == out.text
    tokens = np.concatenate([chunk.tokens for chunk in chunks])
    np.testing.assert_array_equal(tokens, np.asarray(out.tokens)[: int(out.lengths)])
    assert {chunk.row for chunk in chunks} == {()}
    assert len(chunks) > 1


def test_a_stream_holds_back_the_beginning_of_a_stop_string():
    chunks = []
    write(count=8, stop_strings=("efx", "ghi"), stream=chunks.append, segment=1)
    assert [chunk.text for chunk in chunks] == ["b", "c", "d", "", "", "ef", "", ""]
    assert [len(chunk.tokens) for chunk in chunks] == [1] * 8


def test_text_held_back_is_shown_at_the_end():
    chunks = []
    out = write(count=4, stop_strings="efx", stream=chunks.append, segment=1)
    assert [chunk.text for chunk in chunks] == ["b", "c", "d", "e"]
    assert out.text == "bcde"


def test_a_stream_without_tokenizer_and_of_several_rows():
    chunks = []
    rows = np.array([[0], [3]])
    out = decoding.generate(
        successor_model(),
        rows,
        max_new_tokens=5,
        sampler=decoding.sampler(decoding.top_k(1)),
        rng=jax.random.key(0),
        num_samples=2,
        stream=chunks.append,
        segment=2,
    )
    assert {chunk.row for chunk in chunks} == {(s, b) for s in range(2) for b in range(2)}
    assert {chunk.text for chunk in chunks} == {None}
    for row in np.ndindex(2, 2):
        tokens = np.concatenate([chunk.tokens for chunk in chunks if chunk.row == row])
        np.testing.assert_array_equal(tokens, out.tokens[row])


class Utf8:
    """Tokens are bytes of "é€" = C3 A9 E2 82 AC, repeated."""

    def decode(self, ids):
        return bytes("é€".encode()[int(i) % 5] for i in ids).decode("utf-8", errors="replace")


def test_a_stream_never_breaks_a_character():
    chunks = []
    out = decoding.generate(successor_model(), [4], max_new_tokens=6, tokenizer=Utf8(), stream=chunks.append, segment=1)
    assert [chunk.text for chunk in chunks] == ["", "é", "", "", "€", "\N{REPLACEMENT CHARACTER}"]
    assert out.text == "é€\N{REPLACEMENT CHARACTER}"


def test_an_exception_in_the_callback_ends_the_generation():
    class Enough(Exception):
        pass

    def stop(chunk):
        raise Enough

    CALL_COUNTS.clear()
    with pytest.raises(Enough):
        write(stream=stop, segment=1)
    jax.effects_barrier()
    assert CALL_COUNTS["run"] == 1
    assert write(count=3).text == "bcd"
