"""Seq2SeqBatches of sentences: what they are, reading them from a table, and holding some of them out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.data.documents import decode_utf8
from jax_attention.data.split import name_hash


class Pair(NamedTuple):
    """A sentence and its translation.

        target_i translates source_{alignment_i}

    Args:
        source: to read.
        target: to write.
        alignment: for each word of the target the place of the word of the source that it translates, -1 for none;
            None if nobody knows.
        note: where the pair is from, or what is in it.

    Returns:
        A tuple.

    Raises:
        Nothing.

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
    """Read pairs from a table whose columns are parted by tabs.

        line  =  column_0 TAB column_1 TAB column_2 …

    Blank lines are skipped. Columns stay as they are, spaces included.

    Args:
        path: a UTF-8 file.
        columns: the numbers of the columns of source and target, from 0.
        note: the column that says where the pair is from, kept in `Pair.note`; "" in lines that are too short for it.
            None keeps no note.

    Returns:
        A list of `Pair`, in the order of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if bytes are not UTF-8, a line has too few columns or an empty one (the message names file and
            line), or there is no pair at all.
        TypeError: if a column is not an int.

    Example:
        >>> import pathlib, tempfile
        >>> from jax_attention import data
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "pairs.tsv"
        >>> _ = path.write_text("Hi.\\t你好。\\tmine\\n", encoding="utf-8")
        >>> data.read_pairs(path)
        [Pair(source='Hi.', target='你好。', alignment=None, note='mine')]

    Reference:
        https://www.manythings.org/anki/: sentences of Tatoeba in this layout.
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
        raise FileNotFoundError(f"path: expected a file of pairs, got {str(path)!r}, which is none. Name a TSV file.")
    lines = decode_utf8(path.read_bytes(), str(path)).split("\n")
    pairs = [
        _pair(line.removesuffix("\r"), f"{path}:{i}", columns, note) for i, line in enumerate(lines, 1) if line.strip()
    ]
    fail_unless(len(pairs) > 0, f"path: expected at least one pair, got none in {str(path)!r}. Is the file empty?")
    return pairs


def split_pairs(pairs: Iterable[Pair], fraction: float = 0.1) -> tuple[list[Pair], list[Pair]]:
    """Part pairs into training and held-out ones by a hash of the source.

        held out  =  pairs with  sha256(source) / 2^256 < fraction

    All translations of one sentence stay together, and where a sentence goes depends on nothing but itself: neither on
    the order of the pairs nor on the others.

    Args:
        pairs: any number of them. Both results keep their order.
        fraction: of the different sources to hold out, in expectation; between 0 and 1.

    Returns:
        `(training, held_out)`, neither of them empty.

    Raises:
        ValueError: if the fraction is not between 0 and 1, or one of the two would be empty.

    Example:
        >>> from jax_attention import data
        >>> training, held_out = data.split_pairs([data.Pair(str(i), "x") for i in range(1000)])
        >>> len(training), len(held_out)
        (894, 106)

    Reference:
        See `split_documents`.
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
        parts[share(pair.source) < fraction].append(pair)
    fail_unless(
        all(parts),
        f"pairs: expected enough to train on some and hold out {fraction:g}, got {len(parts[0])} and {len(parts[1])}. "
        "Add pairs, or take another fraction.",
    )
    return parts


def share(text: str) -> float:
    """A number from 0 to 1 that depends on the text alone."""
    return int.from_bytes(name_hash(text)[:8], "big") / 2**64


def _pair(line: str, place: str, columns: tuple[int, int], note: int | None) -> Pair:
    fields = line.split("\t")
    fail_unless(
        len(fields) > max(columns),
        f"path: expected at least {max(columns) + 1} columns parted by tabs, got {len(fields)} in {place}: "
        f"{line[:60]!r}. Mend the line, or choose other columns=.",
    )
    source, target = (fields[column] for column in columns)
    fail_unless(
        source.strip() != "" and target.strip() != "",
        f"path: expected text in columns {columns}, got an empty one in {place}: {line[:60]!r}. Mend or drop the line.",
    )
    return Pair(source, target, note=fields[note] if note is not None and note < len(fields) else "")
