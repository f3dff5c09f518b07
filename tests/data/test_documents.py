"""Text is read unchanged or refused with the place of the error; no text is on both sides of a split."""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jax_attention import data


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def names(documents: list[data.Document]) -> list[str]:
    return [document.name for document in documents]


def size(documents: list[data.Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)


# --- Reading ---------------------------------------------------------------------------------------------------------


def test_text_is_unchanged_except_for_the_byte_order_mark(tmp_path):
    write(tmp_path, {"a.txt": b"\xef\xbb\xbfone\r\ntwo\rthree\n\xef\xbb\xbf\x00\xe4\xbd\xa0"})
    assert data.read_documents(tmp_path / "a.txt") == [("a.txt", "one\r\ntwo\rthree\n\ufeff\0你")]


def test_folders_give_sorted_files_of_the_suffixes_without_hidden_ones(tmp_path):
    write(tmp_path, {n: n for n in ("z.txt", "b/a.txt", "b.md", "c.py", ".hidden.txt", ".git/x.txt", "B.txt")})
    assert names(data.read_documents(tmp_path)) == ["B.txt", "b.md", "b/a.txt", "z.txt"]
    assert names(data.read_documents(tmp_path, suffixes=(".py",))) == ["c.py"]
    assert len(data.read_documents(tmp_path, suffixes=("",))) == 5


def test_patterns_name_files_below_their_fixed_part(tmp_path):
    write(tmp_path, {"x/1.txt": "1", "x/y/2.txt": "2", "x/3.md": "3", "x/dir.txt/4.md": "4"})
    assert names(data.read_documents(f"{tmp_path}/x/**/*.txt")) == ["1.txt", "y/2.txt"]
    assert names(data.read_documents([tmp_path / "x" / "?.md", tmp_path / "x/1.txt"])) == ["3.md", "1.txt"]


def test_a_file_with_magic_letters_in_its_name_is_a_file(tmp_path):
    write(tmp_path, {"a[1].txt": "right", "a1.txt": "wrong"})
    assert data.read_documents(tmp_path / "a[1].txt") == [("a[1].txt", "right")]


def test_a_file_named_twice_is_read_once(tmp_path):
    write(tmp_path, {"a.txt": "a", "b.txt": "b"})
    os.symlink(tmp_path / "a.txt", tmp_path / "c.txt")
    paths = [tmp_path / "b.txt", tmp_path, f"{tmp_path}/*.txt", tmp_path / "." / "a.txt"]
    assert names(data.read_documents(paths)) == ["b.txt", "a.txt"]


def test_standard_input_is_read_as_bytes(monkeypatch):
    # an ASCII console must not spoil UTF-8 input
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\ufeff你\r\n".encode()), encoding="ascii"))
    assert data.read_documents(["-", "-"]) == [("<stdin>", "你\r\n")]


def test_bad_bytes_are_refused_with_their_place_and_replaced_on_request(tmp_path):
    path = write(tmp_path, {"bad.txt": b"\xef\xbb\xbfone\ntwo\xe9 three"}) / "bad.txt"
    expected = rf"byte 0xE9 at byte offset 10, line 2, of '{re.escape(str(path))}'.*errors='replace'"
    with pytest.raises(ValueError, match=expected):
        data.read_documents(path)
    assert data.read_documents(path, errors="replace")[0].text == "one\ntwo\ufffd three"


def test_utf16_is_recognised(tmp_path):
    write(tmp_path, {"wide.txt": "\ufeffwide".encode("utf-16-le")})
    with pytest.raises(ValueError, match=r"0xFF at byte offset 0, line 1.*iconv -f UTF-16 -t UTF-8"):
        data.read_documents(tmp_path)


def test_missing_files_and_wrong_arguments_are_named_with_a_cure(tmp_path):
    write(tmp_path, {"a.json": "{}", "b.json": "{}", "empty.txt": ""})
    cases = [
        (str(tmp_path / "none.txt"), {}, FileNotFoundError, r"none\.txt', which does not exist. Relative paths start"),
        (f"{tmp_path}/*.csv", {}, FileNotFoundError, r"\*\.csv', which matches none"),
        (
            tmp_path,
            {"suffixes": (".md",)},
            FileNotFoundError,
            r"end in '\.md' below .*got 2 \.json, 1 \.txt. Pass other",
        ),
        (tmp_path, {}, ValueError, r"expected text, got 1 empty document\(s\): 'empty\.txt'"),
        ([], {}, ValueError, "at least one file, folder, pattern or '-', got none"),
        ("", {}, ValueError, "expected a path, got ''"),
        ([3], {}, TypeError, "expected paths, got int 3"),
        (tmp_path, {"errors": "ignore"}, ValueError, "'strict' or 'replace', got 'ignore'"),
        (tmp_path, {"suffixes": ".txt"}, ValueError, r"expected a tuple, got '\.txt'. One suffix is \('\.txt',\)"),
    ]
    for paths, options, error, message in cases:
        with pytest.raises(error, match=message):
            data.read_documents(paths, **options)


# --- Splitting -------------------------------------------------------------------------------------------------------

TEXTS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.text(st.characters(codec="utf-8"), max_size=9)), min_size=1)


@given(TEXTS, st.floats(0.05, 0.95))
@example([("a", "x"), ("b", "y")], 0.9)
@example([("a", "x" * 9), ("b", "y" * 9)], 0.1)
def test_a_split_loses_nothing_shares_no_text_and_leaves_neither_side_empty(pairs, fraction):
    documents = [data.Document(f"{name}{i}", text) for i, (name, text) in enumerate(pairs)]
    texts = {text for _, text in pairs if text}
    if len(texts) < 2:
        return
    training, held_out = data.split_documents(documents, fraction)
    assert sorted(training + held_out) == sorted(documents)
    assert size(training) > 0 < size(held_out)
    assert {d.text for d in training if d.text}.isdisjoint({d.text for d in held_out})
    for side in (training, held_out):
        places = [documents.index(document) for document in side]
        assert places == sorted(places)


def test_a_split_depends_on_names_not_on_order():
    documents = [data.Document(f"{i}.txt", f"{i:03}" * 10) for i in range(60)]
    _, held_out = data.split_documents(documents, 0.1)
    assert size(held_out) == pytest.approx(0.1 * size(documents), rel=0.1)
    assert sorted(data.split_documents(documents[::-1], 0.1)[1]) == sorted(held_out)
    assert names(held_out) != names(documents)[-len(held_out) :]
    renamed = [data.Document(f"x{d.name}", d.text) for d in documents]
    assert {d.text for d in data.split_documents(renamed, 0.1)[1]} != {d.text for d in held_out}


def test_one_text_is_cut_where_nanogpt_cuts_it():
    text = "".join(chr(97 + i % 26) for i in range(1115394))
    [head], [tail] = data.split_documents([data.Document("input.txt", text)])
    assert head == ("input.txt[:1003854]", text[: int(1115394 * 0.9)])
    assert tail == ("input.txt[1003854:]", text[1003854:])


def test_copies_of_one_text_are_all_cut():
    training, held_out = data.split_documents([data.Document("a", "0123456789"), data.Document("b", "0123456789")], 0.3)
    assert [d.text for d in training] == ["0123456"] * 2
    assert [d.text for d in held_out] == ["789"] * 2


@pytest.mark.parametrize(
    ("documents", "fraction", "message"),
    [
        ([("a", "x" * 9)], 0, "between 0 and 1, got 0"),
        ([("a", "x" * 9)], 1.0, "between 0 and 1, got 1.0"),
        ([("a", "x" * 9)], True, "between 0 and 1, got True"),
        ([("a", "x")], 0.1, r"expected a text long enough to hold out 0.1 of it, got 1 character\(s\) in 'a'"),
        ([("a", ""), ("b", "")], 0.1, r"expected text, got 2 empty document\(s\)"),
        ([], 0.1, r"expected text, got 0 empty document\(s\)"),
    ],
)
def test_impossible_splits(documents, fraction, message):
    with pytest.raises(ValueError, match=message):
        data.split_documents([data.Document(*pair) for pair in documents], fraction)


# --- The standard library --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> list[data.Document]:
    return data.standard_library_corpus()


def test_the_standard_library_is_real_text_without_tests_and_packages(library):
    paths = names(library)
    assert {"argparse.py", "json/decoder.py", "unittest/case.py"} <= set(paths)
    assert size(library) > 5_000_000
    assert paths == sorted(set(paths))
    skipped = re.compile(r"(^|/)(site-packages|dist-packages|tests?|idlelib|__pycache__)/")
    assert [name for name in paths if skipped.search(name)] == []
    assert all(document.text for document in library)


def test_the_standard_library_splits_by_file_into_a_tenth(library):
    training, held_out = data.split_documents(library)
    assert set(names(training)).isdisjoint(names(held_out))
    assert len(training) + len(held_out) == len(library)
    assert size(held_out) == pytest.approx(0.1 * size(library), rel=0.05)


def test_a_size_limit_takes_whole_files(library):
    capped = data.standard_library_corpus(max_bytes=300_000)
    assert 250_000 < size(capped) <= 300_000
    assert set(capped) < set(library)
    assert names(capped) == sorted(names(capped))
    with pytest.raises(ValueError, match="max_bytes: expected room for at least one file, got 3"):
        data.standard_library_corpus(max_bytes=3)


def test_a_size_limit_takes_files_in_the_order_of_their_hashes(monkeypatch, tmp_path):
    write(tmp_path, {f"{i}.py": "0123456789" for i in range(20)})
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    order = sorted((f"{i}.py" for i in range(20)), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert names(data.standard_library_corpus(max_bytes=59)) == sorted(order[:5])


def test_a_library_of_broken_and_missing_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"expected the sources of Python below .*got no \.py file"):
        data.standard_library_corpus()
    write(
        tmp_path, {"latin.py": b"# \xe9", "empty.py": "", "good.py": "x", "test/t.py": "t", "_sysconfigdata_x.py": "m"}
    )
    assert data.standard_library_corpus() == [("good.py", "x")]
