"""Metrics files with each step once, TensorBoard files, the display of a run, and its speed."""

from __future__ import annotations

import io
import json
import math
import struct
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_attention.training.flops import matmul_peak, train_flops
from jax_attention.training.metrics import MetricsFile, TensorBoard, read_metrics
from jax_attention.training.progress import Meter, progress


def line(step, loss, kind="train"):
    return {"kind": kind, "step": step, "loss": loss}


# --- JSON lines ------------------------------------------------------------------------------------------------------


@given(data=st.data(), steps=st.integers(1, 6), text=st.text(max_size=5))
def test_each_step_is_there_once_wherever_the_run_was_interrupted(tmp_path_factory, data, steps, text):
    """Truncate the file at any byte after the lines of the checkpoint and resume: the uninterrupted file results."""
    folder = tmp_path_factory.mktemp("metrics")

    def write(metrics, first):
        for step in range(first, steps + 1):
            metrics.write("train", step, {"loss": step / 7})
            metrics.write("sample", step, {"text": text + "\n{\u2028"})

    with MetricsFile(folder / "uninterrupted.jsonl") as metrics:
        write(metrics, 1)
    whole = (folder / "uninterrupted.jsonl").read_bytes()
    resumed = data.draw(st.integers(0, steps))
    safe = sum(len(text_line) + 1 for text_line in whole.split(b"\n")[: 2 * resumed])
    (folder / "resumed.jsonl").write_bytes(whole[: data.draw(st.integers(safe, len(whole)))])
    with MetricsFile(folder / "resumed.jsonl", after=resumed) as metrics:
        write(metrics, resumed + 1)
    assert (folder / "resumed.jsonl").read_bytes() == whole
    assert read_metrics(folder / "resumed.jsonl", "train") == [line(step, step / 7) for step in range(1, steps + 1)]
    assert [path.name for path in folder.glob("*.new")] == []


def test_numbers_that_json_lacks_and_array_scalars(tmp_path):
    with MetricsFile(tmp_path / "m.jsonl") as metrics:
        metrics.write("train", np.int64(3), {"a": math.nan, "b": -math.inf, "c": np.float32(0.5), "d": np.int32(2)})
        read = read_metrics(tmp_path / "m.jsonl")  # While the file is still open.
    assert read == [{"kind": "train", "step": 3, "a": None, "b": None, "c": 0.5, "d": 2}]
    json.loads((tmp_path / "m.jsonl").read_text(), parse_constant=pytest.fail)


def test_a_new_run_does_not_overwrite_an_old_one(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"kind": "train", "step": 1}\n')
    with pytest.raises(FileExistsError, match=r"path: expected a new file, got .*m.jsonl.*after=step"):
        MetricsFile(path)
    assert path.read_text() == '{"kind": "train", "step": 1}\n'


@pytest.mark.parametrize("bad", ["half a li", "[1, 2]", '{"kind": "train"}', '{"step": 1}', ""])
def test_a_file_of_other_content_is_refused_and_not_changed(tmp_path, bad):
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"kind": "train", "step": 1}}\n{bad}\n{{"kind": "train", "step": 2}}\n')
    before = path.read_bytes()
    for call in (lambda: read_metrics(path), lambda: MetricsFile(path, after=1)):
        with pytest.raises(ValueError, match=r"path: expected a JSON object .* in line 2 of .*m.jsonl"):
            call()
    assert path.read_bytes() == before


def test_resuming_without_a_file_starts_one_and_a_negative_step_is_refused(tmp_path):
    with MetricsFile(tmp_path / "m.jsonl", after=5) as metrics:
        metrics.write("train", 6, {})
    assert read_metrics(tmp_path / "m.jsonl") == [{"kind": "train", "step": 6}]
    with pytest.raises(ValueError, match="after: expected an int >= 0, got -1"):
        MetricsFile(tmp_path / "m.jsonl", after=-1)


# --- TensorBoard -----------------------------------------------------------------------------------------------------


def events(folder):
    """The records of an event file: length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.glob("events.*")
    data, parsed = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        parsed.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return parsed


def test_tensorboard_gets_the_same_values(tmp_path):
    with TensorBoard(tmp_path, after=3) as board:
        board.write("train", 4, {"loss": np.float32(1.5), "none": None})
        board.write("sample", 4, {"text": "Ah"})
    written = events(tmp_path)
    values = [(event.step, v.tag, v.simple_value) for event in written for v in event.summary.value]
    assert (4, "train/loss", 1.5) in values
    assert any(event.step == 4 and b"Ah" in event.SerializeToString() for event in written)
    assert any(event.session_log.status and event.step == 4 for event in written), "steps after 3 are purged"


def test_without_tensorboardx_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'jax_attention\[train\]'"):
        TensorBoard(tmp_path)


# --- The display -----------------------------------------------------------------------------------------------------

VALUES = {"loss": 2.5, "bits_per_byte": 3.6067, "tokens_per_second": 31_234.0, "utilization": 0.412, "seconds_left": 72}
SHOWN = "loss 2.5000 | 3.607 bits/byte | 31.2k tokens/s | 41% of peak | 1:12 left"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_pipe_gets_plain_lines_only(monkeypatch):
    # These make rich write colours into a pipe.
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    out = io.StringIO()
    show = progress(2000, stream=out, every=0)
    show.update(200, VALUES)
    show.message("[bold]sample :smile:")
    show.update(201, {})
    show.close()
    assert out.getvalue() == f"step 200/2000 | {SHOWN}\n[bold]sample :smile:\nstep 201/2000\n"


def test_plain_lines_have_a_minimal_interval():
    out = io.StringIO()
    show = progress(10, stream=out, every=1000.0)
    for step in range(5):
        show.update(step, {})
    show.message("messages are always written")
    assert out.getvalue() == "step 0/10\nmessages are always written\n"


def test_a_terminal_gets_a_live_display_and_unchanged_messages(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    out = Terminal()
    show = progress(2000, stream=out)
    show.update(200, VALUES)
    show.message("[bold]sample :smile:")
    show.close()
    assert "\x1b[" in out.getvalue()
    assert SHOWN in out.getvalue()
    assert "200/2000" in out.getvalue()
    assert "[bold]sample :smile:\n" in out.getvalue()


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    progress(10, stream=out).update(3, {})
    assert out.getvalue() == "step 3/10\n"


def test_without_rich_the_error_names_the_extra(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(ImportError, match=r"pip install 'jax_attention\[train\]'"):
        progress(10, stream=Terminal())


def test_long_times_and_large_speeds_are_abbreviated():
    out = io.StringIO()
    show = progress(9, stream=out, every=0)
    show.update(1, {"tokens_per_second": 2.5e6, "seconds_left": 3725.0})
    show.update(2, {"tokens_per_second": 12.0, "seconds_left": math.inf})
    assert out.getvalue() == "step 1/9 | 2.5M tokens/s | 1:02:05 left\nstep 2/9 | 12 tokens/s | ? left\n"


# --- Speed -----------------------------------------------------------------------------------------------------------


def test_meter_leaves_out_compilation_and_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    meter = Meter(flops_per_token=10.0, peak=1000.0, bytes_per_token=4.0)
    now[0] = 100.0  # Compilation.
    meter.start(5)
    for step in (6, 7):
        now[0] += 1.0
        meter.count(step, tokens=50)
    with meter.paused():
        now[0] += 7.0
    read = meter.read(total=17, loss=4 * math.log(2))
    # 100 tokens in 2 seconds; the 10 steps left take 4.5 seconds each, pauses included.
    assert read == {"tokens_per_second": 50.0, "utilization": 0.5, "seconds_left": 45.0, "bits_per_byte": 1.0}
    now[0] += 1.0
    meter.count(8, tokens=25)
    assert meter.read(total=17, loss=0.0)["tokens_per_second"] == 25.0
    assert Meter().read(total=1, loss=1.0) == {}


def test_flops_are_the_formula_and_the_peak_is_measured_once():
    assert train_flops(parameters=1000, layers=2, context=8, width=16) == 6 * 1000 + 12 * 2 * 8 * 16
    peak = matmul_peak()
    assert 1e8 < peak < 1e16
    assert matmul_peak() == peak


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train_flops(-1, 1, 1, 1), "parameters: expected an int >= 0, got -1"),
        (lambda: Meter(peak=0.0), "peak: expected a positive number, got 0.0"),
        (lambda: progress(-1), "total: expected an int >= 0, got -1"),
        (lambda: progress(1, every=-1.0), "every: expected seconds >= 0, got -1.0"),
    ],
)
def test_wrong_calls(call, message):
    with pytest.raises(ValueError, match=message):
        call()
