"""Pairs are read unchanged, and all translations of a sentence are on one side of a split."""

from __future__ import annotations

import random

import pytest

from jax_attention import data

TABLE = "Hi.\t嗨。\tCC-BY #1 & #2\nHi.\t你好。\tCC-BY #1 & #3\n\n \t \nI won!\t 我赢了。\u2028\tCC-BY #4\n"


def write_table(folder, text: str, encoding: str = "utf-8"):
    path = folder / "pairs.tsv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("text", [TABLE, TABLE.replace("\n", "\r\n"), "\ufeff" + TABLE, TABLE.rstrip("\n")])
def test_a_table_is_read_unchanged(tmp_path, text):
    assert data.read_pairs(write_table(tmp_path, text)) == [
        data.Pair("Hi.", "嗨。", None, "CC-BY #1 & #2"),
        data.Pair("Hi.", "你好。", None, "CC-BY #1 & #3"),
        data.Pair("I won!", " 我赢了。\u2028", None, "CC-BY #4"),
    ]


def test_columns_are_chosen(tmp_path):
    path = write_table(tmp_path, "1\tHi.\t嗨。\n2\tRun.\t跑。\tmine\n")
    pairs = data.read_pairs(str(path), columns=(2, 1), note=3)
    assert pairs == [data.Pair("嗨。", "Hi."), data.Pair("跑。", "Run.", note="mine")]
    assert [pair.note for pair in data.read_pairs(path, columns=(2, 1), note=None)] == ["", ""]
    assert [pair.note for pair in data.read_pairs(path, columns=(2, 1), note=0)] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a\tb\n\nalone\n", {}, r"at least 2 tab-separated columns, got 1 in .*pairs\.tsv:3: 'alone'\. Fix the line"),
        ("a\tb\n", {"columns": (0, 2)}, r"at least 3 tab-separated columns, got 2 in .*pairs\.tsv:1"),
        ("a\tb\na\t \tx", {}, r"expected text in columns \(0, 1\), got an empty one in .*pairs\.tsv:2"),
        ("\n\n", {}, "expected at least one pair, got none"),
        ("a\tb", {"columns": (0, -1)}, "columns: expected an int >= 0, got -1"),
        ("a\tb", {"note": -1}, "note: expected an int >= 0, got -1"),
    ],
)
def test_wrong_tables(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        data.read_pairs(write_table(tmp_path, text), **options)


def test_wrong_files_and_columns(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: expected a file of pairs"):
        data.read_pairs(tmp_path / "none.tsv")
    with pytest.raises(
        ValueError, match=r"expected UTF-8 text, got byte 0xE9 at byte offset 4, line 2, of .*pairs\.tsv"
    ):
        data.read_pairs(write_table(tmp_path, "a\tb\né\tc\n", "latin-1"))
    with pytest.raises(TypeError, match=r"columns: expected two numbers, \(source, target\), got 1"):
        data.read_pairs(write_table(tmp_path, "a\tb"), columns=1)


PAIRS = [data.Pair(f"sentence {i}", f"{i} 之 {k}") for i in range(2000) for k in range(1 + i % 3)]


def test_the_translations_of_a_sentence_stay_together():
    training, held_out = data.split_pairs(PAIRS, fraction=0.2)
    assert {pair.source for pair in training}.isdisjoint(pair.source for pair in held_out)
    assert sorted(training + held_out) == sorted(PAIRS)
    share = len({pair.source for pair in held_out}) / 2000
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / 2000) ** 0.5


def test_the_side_of_a_sentence_depends_on_the_sentence_alone():
    held_out = {pair.source for pair in data.split_pairs(PAIRS)[1]}
    shuffled = random.Random(0).sample(PAIRS, len(PAIRS))
    training, held_out_pairs = data.split_pairs(shuffled)
    assert {pair.source for pair in held_out_pairs} == held_out
    assert [pair for pair in shuffled if pair.source not in held_out] == training, "in the order of the input"
    fewer = data.split_pairs(pair._replace(target="x", note="y") for pair in PAIRS[::2])[1]
    assert {pair.source for pair in fewer} == held_out & {pair.source for pair in PAIRS[::2]}
    assert held_out < {pair.source for pair in data.split_pairs(PAIRS, fraction=0.2)[1]}


def test_impossible_splits():
    for fraction in (0, 1, True, "0.1"):
        with pytest.raises(ValueError, match="fraction: expected a number between 0 and 1"):
            data.split_pairs(PAIRS, fraction=fraction)
    with pytest.raises(ValueError, match=r"enough to train on some and hold out 0\.1, got [01] and [01]"):
        data.split_pairs(PAIRS[:1])
    with pytest.raises(TypeError, match=r"pairs: expected Pair, got tuple \('a', 'b'\)"):
        data.split_pairs([("a", "b")])
