"""Stop strings cut the text exactly, streams show neither half a character nor half a stop string, at any segment."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jax_attention import decoding
from tests.decoding import counting

ALPHABET = "bcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"


def write(prompt="a", count=30, **options):
    options = {"tokenizer": counting.Letters()} | options
    return decoding.generate(counting.successor(), counting.letters(prompt), max_new_tokens=count, **options)


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
def test_text_ends_before_the_stop_string_and_tokens_with_it(stops, text, length, segment):
    """Where the loop pauses must not matter: the token that completes a stop string first ends the row."""
    out = write(stop_strings=stops, segment=segment)
    assert out.text == text
    assert int(out.lengths) == length
    assert bool(out.stopped) == (length < 30)
    assert counting.Letters().decode(np.asarray(out.tokens)[:length]) == ALPHABET[:length]
    assert not np.asarray(out.tokens)[length:].any()
    assert not np.asarray(out.logprobs)[length:].any()


def test_rows_stop_by_themselves():
    out = decoding.generate(
        counting.successor(),
        [counting.letters("a"), counting.letters("xy"), counting.letters("c")],
        max_new_tokens=10,
        stop_strings=("ef", "ab"),
        stop_tokens=counting.letters("h"),
        tokenizer=counting.Letters(),
        segment=3,
    )
    assert out.text == ["bcd", "z", "d"]
    np.testing.assert_array_equal(out.lengths, [5, 3, 3])
    assert out.stopped.all()


def test_text_without_stop_strings_and_nested_lists():
    assert write(count=4).text == "bcde"
    prompts = np.array([[[0], [1]], [[2], [3]], [[4], [5]]])
    out = decoding.generate(counting.successor(), prompts, max_new_tokens=2, tokenizer=counting.Letters())
    assert out.text == [["bc", "cd"], ["de", "ef"], ["fg", "gh"]]
    assert decoding.generate(counting.successor(), prompts, max_new_tokens=2).text is None


@pytest.mark.parametrize("segment", [None, 1, 4])
@pytest.mark.parametrize("stops", [(), ("hij", "mno")])
def test_pieces_joined_are_the_result(segment, stops):
    pieces = []
    out = write(stop_strings=stops, stream=pieces.append, segment=segment)
    assert "".join(piece.text for piece in pieces) == out.text
    tokens = np.concatenate([piece.tokens for piece in pieces])
    np.testing.assert_array_equal(tokens, np.asarray(out.tokens)[: int(out.lengths)])
    assert {piece.row for piece in pieces} == {()}
    assert len(pieces) > 1


def test_a_stream_holds_back_what_may_become_a_stop_string():
    pieces = []
    write(count=8, stop_strings=("efx", "ghi"), stream=pieces.append, segment=1)
    assert [piece.text for piece in pieces] == ["b", "c", "d", "", "", "ef", "", ""]
    assert [len(piece.tokens) for piece in pieces] == [1] * 8


def test_what_was_held_back_comes_at_the_end():
    pieces = []
    out = write(count=4, stop_strings="efx", stream=pieces.append, segment=1)
    assert [piece.text for piece in pieces] == ["b", "c", "d", "e"]
    assert out.text == "bcde"


def test_a_stream_without_tokenizer_and_of_several_rows():
    pieces = []
    rows = np.array([[0], [3]])
    out = decoding.generate(
        counting.successor(),
        rows,
        max_new_tokens=5,
        sampler=decoding.sampler(decoding.top_k(1)),
        rng=jax.random.key(0),
        num_samples=2,
        stream=pieces.append,
        segment=2,
    )
    assert {piece.row for piece in pieces} == {(s, b) for s in range(2) for b in range(2)}
    assert {piece.text for piece in pieces} == {None}
    for row in np.ndindex(2, 2):
        own = np.concatenate([piece.tokens for piece in pieces if piece.row == row])
        np.testing.assert_array_equal(own, out.tokens[row])


class Utf8:
    """Tokens are bytes of "é€" = C3 A9 E2 82 AC, repeated."""

    def decode(self, ids):
        return bytes("é€".encode()[int(i) % 5] for i in ids).decode("utf-8", errors="replace")


def test_a_stream_never_breaks_a_character():
    pieces = []
    out = decoding.generate(
        counting.successor(), [4], max_new_tokens=6, tokenizer=Utf8(), stream=pieces.append, segment=1
    )
    assert [piece.text for piece in pieces] == ["", "é", "", "", "€", "\N{REPLACEMENT CHARACTER}"]
    assert out.text == "é€\N{REPLACEMENT CHARACTER}"


def test_an_exception_in_the_stream_comes_through_and_ends_the_work():
    class Enough(Exception):
        pass

    def stop(piece):
        raise Enough

    counting.COUNTS.clear()
    with pytest.raises(Enough):
        write(stream=stop, segment=1)
    jax.effects_barrier()
    assert counting.COUNTS["run"] == 1
    assert write(count=3).text == "bcd"
