"""Pairs of a source and a target text: reading them from a table, and splitting them into training and held-out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.data.documents import decode_utf8
from jax_attention.data.split import name_hash


class Pair(NamedTuple):
    """A source text and its target text, such as a sentence and its translation.

        target word i translates source word alignment[i]

    Args:
        source: text that a model reads.
        target: text that a model writes.
        alignment: for each word of the target the index of the source word that it translates, -1 for none; None if the
            alignment is unknown.
        note: free text about the pair, such as its origin.

    Example:
        >>> from jax_attention import data
        >>> data.Pair("Tom sleeps today", "汤姆 今天 睡觉", alignment=(0, 2, 1)).note
        ''

    Reference:
        Brown et al. (1993), "The mathematics of statistical machine translation", for alignments.
    """

    source: str
    target: str
    alignment: tuple[int, ...] | None = None
    note: str = ""


def read_pairs(path: str | os.PathLike, columns: tuple[int, int] = (0, 1), note: int | None = 2) -> list[Pair]:
    """Read pairs from a file with tab-separated columns.

        line  =  column_0 TAB column_1 TAB column_2 …

    Blank lines are skipped. The text of columns is not changed, white space included.

    Args:
        path: a UTF-8 file.
        columns: column numbers of source and target, from 0.
        note: number of the column to keep in `Pair.note`, such as the origin of the pair; the note is "" in lines
            without that column. None keeps no note.

    Returns:
        A list of `Pair`, in the order of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if bytes are not UTF-8, a line has too few columns or an empty one (the message names file and
            line), or the file has no pair.
        TypeError: if a column is not an int.

    Example:
        >>> import pathlib, tempfile
        >>> from jax_attention import data
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "pairs.tsv"
        >>> _ = path.write_text("Hi.\\t你好。\\tmine\\n", encoding="utf-8")
        >>> data.read_pairs(path)
        [Pair(source='Hi.', target='你好。', alignment=None, note='mine')]

    Reference:
        https://www.manythings.org/anki/, which offers sentences of Tatoeba in this format.
    """
    fail_unless(
        isinstance(columns, tuple) and len(columns) == 2,
        f"columns: expected two numbers, (source, target), got {columns!r}. The first two columns are (0, 1).",
        TypeError,
    )
    for column in columns:
        check_int("columns", column, 0, "Columns count from 0.")
    if note is not None:
        check_int("note", note, 0, "Columns count from 0; None keeps no note.")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"path: expected a file of pairs, got {str(path)!r}, which is no file. Name a TSV file."
        )
    lines = decode_utf8(path.read_bytes(), str(path)).split("\n")
    pairs = [
        _pair(line.removesuffix("\r"), f"{path}:{i}", columns, note) for i, line in enumerate(lines, 1) if line.strip()
    ]
    fail_unless(len(pairs) > 0, f"path: expected at least one pair, got none in {str(path)!r}. Is the file empty?")
    return pairs


def split_pairs(pairs: Iterable[Pair], fraction: float = 0.1) -> tuple[list[Pair], list[Pair]]:
    """Split pairs into training and held-out pairs by a hash of the source.

        held out  =  pairs with  sha256(source) / 2^256 < fraction

    All translations of one source are on the same side, and the side of a source depends neither on the order of the
    pairs nor on the other pairs.

    Args:
        pairs: `Pair`s in any order, which both results keep.
        fraction: expected share of the different sources to hold out, between 0 and 1.

    Returns:
        `(training, held_out)`, two lists that are not empty.

    Raises:
        ValueError: if the fraction is not between 0 and 1, or a result would be empty.

    Example:
        >>> from jax_attention import data
        >>> training, held_out = data.split_pairs([data.Pair(str(i), "x") for i in range(1000)])
        >>> len(training), len(held_out)
        (894, 106)
    """
    fail_unless(
        not isinstance(fraction, bool) and isinstance(fraction, (int, float)) and 0 < fraction < 1,
        f"fraction: expected a number between 0 and 1, got {fraction!r}. 0.1 holds out a tenth.",
    )
    parts: tuple[list[Pair], list[Pair]] = ([], [])
    for pair in pairs:
        fail_unless(
            isinstance(pair, Pair), f"pairs: expected Pair, got {describe_array(pair)}. Take Pair(a, b).", TypeError
        )
        parts[hash_fraction(pair.source) < fraction].append(pair)
    fail_unless(
        all(parts),
        f"pairs: expected enough to train on some and hold out {fraction:g}, got {len(parts[0])} and {len(parts[1])}. "
        "Add pairs, or take another fraction.",
    )
    return parts


def hash_fraction(text: str) -> float:
    """Hash of a text as a number from 0 to 1."""
    return int.from_bytes(name_hash(text)[:8], "big") / 2**64


def _pair(line: str, place: str, columns: tuple[int, int], note: int | None) -> Pair:
    fields = line.split("\t")
    fail_unless(
        len(fields) > max(columns),
        f"path: expected at least {max(columns) + 1} tab-separated columns, got {len(fields)} in {place}: "
        f"{line[:60]!r}. Fix the line, or choose other columns=.",
    )
    source, target = (fields[column] for column in columns)
    fail_unless(
        source.strip() != "" and target.strip() != "",
        f"path: expected text in columns {columns}, got an empty one in {place}: {line[:60]!r}. Fix or drop the line.",
    )
    return Pair(source, target, note=fields[note] if note is not None and note < len(fields) else "")
