"""Timing of competitors: fewer rounds for slow ones, a reason for missing ones, cases accumulated over runs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import attention, worker


class FakeWorker:
    """A worker whose calls take a fixed number of seconds."""

    def __init__(self, name, seconds=1.0, missing=None, output=0.0):
        self.name, self._seconds, self._missing, self._output = name, seconds, missing, output
        self.calls = 0

    def missing(self, label):
        return self._missing

    def seconds(self, label, warm=False):
        self.calls += 1
        return self._seconds

    def output(self, label):
        return np.full(3, self._output, np.float32)


def test_rounds_shrink_with_the_time_of_a_call():
    workers = [
        FakeWorker("jax_attention", 0.5),
        FakeWorker("slow", 2.0),
        FakeWorker("very slow", 30.0),
        FakeWorker("absent", missing="no backward pass"),
    ]
    result = worker.compare(workers, "forward", rounds=3)
    assert result["rounds"] == {"jax_attention": 3, "slow": 2, "very slow": 1}
    assert [w.calls for w in workers] == [4, 3, 1, 0], "one call to warm up, the only one of the very slow"
    assert result["ms"] == {"jax_attention": 500.0, "slow": 2000.0, "very slow": 30000.0, "absent": None}
    assert result["ratio"] == {"slow": 4.0, "very slow": 60.0, "absent": None}
    assert result["missing"] == {"absent": "no backward pass"}


@pytest.mark.parametrize("wrong", [1.0, np.nan])
def test_outputs_must_agree(wrong):
    workers = [
        FakeWorker("jax_attention"),
        FakeWorker("peer", output=1e-6),
        FakeWorker("absent", missing="x", output=wrong),
    ]
    assert worker.largest_difference(workers, "forward", 1e-5) == pytest.approx(1e-6)
    with pytest.raises(SystemExit, match=r"outputs differ from those of jax_attention: \{'peer': "):
        worker.largest_difference([FakeWorker("jax_attention"), FakeWorker("peer", output=wrong)], "forward", 1e-5)


def test_programs_that_need_too_much_memory_are_not_run(monkeypatch):
    monkeypatch.setattr(worker, "MAX_TEMPORARY_BYTES", -1)
    call = worker.compile_jax(lambda x: x + 1, np.ones(3, np.float32))
    assert call.run is None
    assert call.missing == "needs 0.0 GiB of temporary memory"


def test_a_missing_package_is_the_reason():
    def make():
        import a_missing_package

        return a_missing_package

    assert worker._prepare(make, ()) == {"all": worker.PreparedCall(None, "not installed: a_missing_package")}


def test_cases_accumulate_in_one_file_unless_the_setting_differs(tmp_path):
    path, here = tmp_path / "attention.json", {"heads": 4, "versions": {"jax": "1"}}
    assert attention.load_cases(path, here) == {}
    cases = {
        (T, 64, kind): {"T": T, "H": 64, "kind": kind} for T, kind in ((512, "full"), (128, "alibi"), (128, "full"))
    }
    attention.save_cases(path, here, cases)
    assert attention.load_cases(path, here) == cases
    order = [(case["T"], case["kind"]) for case in json.loads(path.read_text(encoding="utf-8"))["cases"]]
    assert order == [(128, "full"), (128, "alibi"), (512, "full")]
    with pytest.raises(SystemExit, match="measured elsewhere or with other versions"):
        attention.load_cases(path, here | {"heads": 8})
