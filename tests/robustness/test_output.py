"""A lost reader, a full disk, a narrow encoding or a closed stream ends no training and shows no traceback."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import subprocess
import sys

import pytest

from jax_attention import decoding, interop, training
from jax_attention.cli.__main__ import main
from jax_attention.cli.output import console, table
from jax_attention.core.files import replaced_file
from jax_attention.core.os_errors import WORDS, describe_os_error, find_os_error
from jax_attention.core.output import Output, print_error, print_line, print_text, safe_streams
from tests.cli.quick_run import QUICK, TEXT
from tests.support.streams import FailingStream, Terminal, encoded_stream
from tests.support.tiers import slow

TITLE = "\x1b]0;owned\x07"


def os_error(number):
    """A function that makes the error of this number; a new one each time, as errors are changed on their way."""
    return lambda: OSError(number, os.strerror(number))


LOST = {
    "reader": os_error(errno.EPIPE),
    "disk": os_error(errno.ENOSPC),
    "file size": os_error(errno.EFBIG),
    "terminal": os_error(errno.EIO),
    "closed": lambda: ValueError("I/O operation on closed file"),
}


# --- One stream ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", LOST)
def test_text_after_a_failure_is_dropped_and_counted(what):
    stream = FailingStream(LOST[what], start="b")
    output = Output(stream, "standard output")
    for text in ("a\n", "b\nc\n", "d\n"):
        assert output.write(text) == len(text)
    reason = "Bad file descriptor" if what == "closed" else LOST[what]().strerror
    assert (stream.getvalue(), output.loss()) == ("a\n", f"standard output: 3 lines lost ({reason})")


def test_a_required_stream_raises_its_first_failure_only():
    output = Output(FailingStream(LOST["disk"]), "standard output", required=True)
    with pytest.raises(OSError, match="No space left") as caught:
        output.write("a\n")
    assert caught.value is output.failure
    assert output.write("b\n") == 2
    assert output.loss() == "standard output: 1 line lost (No space left on device)"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", rb"a\u2013\xe9\U0001f600\udcff"),
        ("cp1252", b"a\x96\xe9\\U0001f600\\udcff"),
        ("utf-8", b"a\xe2\x80\x93\xc3\xa9\xf0\x9f\x98\x80\\udcff"),
    ],
)
def test_letters_that_the_encoding_lacks_become_escapes(encoding, expected):
    stream = encoded_stream(encoding)
    Output(stream).write("a\u2013\xe9\U0001f600\udcff")
    assert stream.buffer.getvalue() == expected


def test_no_stream_takes_everything():
    output = Output(None)
    output.write("a\n")
    assert (output.isatty(), output.loss()) == (False, None)
    with pytest.raises(io.UnsupportedOperation):
        output.fileno()


def test_safe_streams_are_put_back(monkeypatch):
    before = sys.stdout, sys.stderr
    with safe_streams():
        assert isinstance(sys.stdout, Output)
        monkeypatch.setattr(sys.stderr, "stream", FailingStream(LOST["reader"]))
        print_error("lost without an exception")
    assert (sys.stdout, sys.stderr) == before


# --- Control characters ----------------------------------------------------------------------------------------------


def written(monkeypatch, stream, write, *arguments, **options):
    monkeypatch.setattr(sys, "stdout", stream)
    write(*arguments, **options)
    return stream.getvalue()


def test_control_characters_of_generated_text_reach_files_but_no_terminal(monkeypatch):
    shown = TITLE.encode("unicode_escape").decode()
    assert written(monkeypatch, io.StringIO(), print_text, TITLE) == TITLE
    assert written(monkeypatch, Terminal(), print_text, TITLE) == shown
    assert written(monkeypatch, Terminal(), print_text, TITLE, raw=True) == TITLE
    assert written(monkeypatch, io.StringIO(), print_line, TITLE) == shown + "\n"


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
@pytest.mark.parametrize("cell", ["x[/y]", "x\\[/y]", "[bold]x", TITLE])
def test_cells_are_neither_markup_nor_commands(kind, cell, monkeypatch):
    printed = written(monkeypatch, kind(), table, ["[/a]", "b"], [[cell, "c\td"]])
    assert cell.replace(TITLE, "\\x1b]0;owned\\x07") in printed
    assert "\x1b]0;" not in printed
    assert "c d" in printed
    assert "[/a]" in printed


def test_the_title_of_a_comparison_is_neither_markup_nor_a_command(monkeypatch):
    report = interop.ParityReport(f"GPT2 of x[/y]{TITLE}", "float32", (), 1e-6, None)
    printed = written(monkeypatch, Terminal(), lambda: console().print(report.table()))
    assert "GPT2 of x[/y]\\x1b]0;owned\\x07, float32" in printed


@pytest.mark.parametrize(("stream", "expected"), [(io.StringIO, TITLE), (Terminal, "\\x1b]0;owned\\x07")])
def test_sample_texts_of_a_training(stream, expected, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    output = stream()
    display = training.progress(2, stream=output)
    display.message(f"[/sample] {TITLE}")
    display.close()
    assert f"[/sample] {expected}" in output.getvalue()


# --- Displays and commands -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("what", ["reader", "disk", "terminal"])
def test_a_display_without_a_reader_goes_on_and_says_what_was_lost(what, terminal, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    display = training.progress(2, stream=FailingStream(LOST[what], terminal=terminal), every=0)
    for step in (1, 2):
        display.update(step, {"loss": 1.0})
        display.message("text\nof two lines")
    display.close()
    assert f"lost ({LOST[what]().strerror})" in capsys.readouterr().err


def run_main(arguments, monkeypatch, capsys, stream):
    """Status and standard error of a command whose standard output is `stream`."""
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        status = main(arguments)
    return status, capsys.readouterr().err


ESCAPE = "\x1b"
LETTERS = f"天地玄黄{ESCAPE}宇宙洪荒\n" * 60


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A run on Chinese letters and a control character, on an ASCII stream whose reader leaves before the results."""
    path, out = tmp_path_factory.mktemp("text") / "text.txt", tmp_path_factory.mktemp("runs") / "letters"
    path.write_text(LETTERS, encoding="utf-8")
    output, error = FailingStream(LOST["reader"], start="held-out text", encoding="ascii"), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        assert main(["train", str(path), "--out", str(out), *QUICK]) == 0
    return out, output.getvalue(), error.getvalue()


def test_a_training_goes_on_when_letters_are_lacking_and_the_reader_leaves(letters):
    out, output, error = letters
    assert "--- continues: '\\u" in output
    assert re.fullmatch(r"standard output: \d+ lines lost \(Broken pipe\)\n", error)
    assert (out / "results.json").exists()


def generate(out, stream, monkeypatch, capsys, *options):
    """Status and standard error of a generation that writes to a stream."""
    command = ["generate", str(out), "--prompt", f"天{ESCAPE}", "--max-new-tokens", "3", *options]
    return run_main(command, monkeypatch, capsys, stream)


@pytest.mark.parametrize(
    ("stream", "options", "begin"),
    [
        (io.StringIO, ["--greedy"], "天\x1b"),
        (Terminal, ["--greedy"], "天\\x1b"),
        (Terminal, ["--greedy", "--raw"], "天\x1b"),
        *slow(pytest.param(Terminal, ["--beams", "2"], "天\\x1b")),
    ],
)
def test_generated_text_is_raw_except_on_a_terminal(stream, options, begin, letters, monkeypatch, capsys):
    output = stream()
    assert generate(letters[0], output, monkeypatch, capsys, *options) == (0, "")
    assert output.getvalue().startswith(begin)


def test_a_generation_ends_quietly_without_a_reader(letters, monkeypatch, capsys):
    assert generate(letters[0], FailingStream(LOST["reader"]), monkeypatch, capsys) == (1, "")


def test_the_prompt_is_printed_after_all_checks(letters, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise ValueError("stop_strings: expected non-empty strings, got [''].")

    monkeypatch.setattr(decoding, "generate", refuse)
    stream = io.StringIO()
    status, error = generate(letters[0], stream, monkeypatch, capsys)
    assert (status, stream.getvalue()) == (1, "")
    assert error == "jax-attention: --stop: expected non-empty strings, got [''].\n"


def test_standard_input_that_is_closed(letters, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["generate", str(letters[0]), "--prompt", "-"]) == 1
    assert "--prompt: expected a standard input for -, got a closed one." in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["rules"], ["explain", "--length", "8"], ["train", "--help"], ["--version"]])
def test_a_short_command_without_a_reader_ends_quietly(arguments, monkeypatch, capsys):
    assert run_main(arguments, monkeypatch, capsys, FailingStream(LOST["reader"])) == (1, "")


def test_a_short_command_on_a_full_disk_says_so(monkeypatch, capsys):
    status, error = run_main(["rules"], monkeypatch, capsys, FailingStream(LOST["disk"]))
    assert (status, error.count("\n")) == (1, 1)
    assert error.startswith("jax-attention: 'standard output': expected room on the disk, got a full disk.")


def test_a_command_without_standard_streams(monkeypatch, capsys):
    assert run_main(["rules"], monkeypatch, capsys, None) == (0, "")
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["rules", "no_such_rule"]) == 1


SCRIPT = {
    "reader": ("{} rules | head -n 1", "part\trule\twhat it does\n", ""),
    "no reader": ("{} rules | true", "", ""),
    "full disk": ("{} rules > /dev/full", "", "got a full disk"),
    "closed output": ("{} rules >&-", "", ""),
    "closed error": ("{} rules no_such_rule 2>&-", "", ""),
    "narrow": ("PYTHONIOENCODING=ascii LC_ALL=C {} rules concat", "\\u2013", ""),
    "no docstrings": ("{} train --help", "--learning-rate", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SCRIPT)
def test_of_a_real_process(case):
    """Python flushes its streams when it exits, so a broken one is only seen in a process of its own."""
    script, output, error = SCRIPT[case]
    optimise = "-OO" if case == "no docstrings" else ""
    command = script.format(f"{sys.executable} {optimise} -W error -m jax_attention.cli")
    buffered = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", command], env=buffered, capture_output=True, text=True, check=False)
    assert output in done.stdout
    assert error in done.stderr
    assert done.stderr == "" or error
    assert "Exception ignored" not in done.stderr


@pytest.mark.slow
def test_a_training_without_standard_output(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-m", "jax_attention.cli", "train", tmp_path / "text.txt"]
    words = " ".join(map(str, [*command, "--out", tmp_path / "out", *QUICK]))
    done = subprocess.run(["bash", "-c", f"{words} >&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "results.json").exists()


CLOSED = """
import os
os.close(1)
from jax_attention.core.output import safe_streams
with safe_streams():
    assert os.open(os.devnull, os.O_RDONLY) > 2
"""


def test_no_file_gets_the_number_of_a_closed_stream():
    done = subprocess.run([sys.executable, "-c", CLOSED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- Errors of the operating system ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", WORDS)
def test_errors_of_the_operating_system_are_words(number):
    message = describe_os_error(OSError(number, os.strerror(number), "run/\x1bfile"))
    assert message.startswith("'run/\\x1bfile': expected ")
    assert message.endswith(".")
    assert "Errno" not in message
    assert describe_os_error(find_os_error(f"Error writing: {os.strerror(number)} [spec]")).startswith("file: expected")


def test_an_unknown_error_keeps_its_words():
    assert describe_os_error(OSError(errno.EXDEV, "Invalid cross-device link", b"a")) == (
        "'a': Invalid cross-device link."
    )
    assert describe_os_error(FileExistsError("out: expected a new folder.")) == "out: expected a new folder."
    assert find_os_error("loss: expected a number") is None


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(OSError, match="No space left") as caught, replaced_file(path):
        raise LOST["disk"]()
    assert describe_os_error(caught.value).startswith(f"'{path}': expected room on the disk")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("text.txt/x", "expected folders in all parts of the path but the last"),
        ("x" * 300, "expected a shorter name"),
        ("loop/x", "expected a path that ends somewhere"),
    ],
)
def test_a_folder_that_cannot_be_made(out, expected, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert main(["train", str(tmp_path / "text.txt"), "--out", str(tmp_path / out), *QUICK]) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
