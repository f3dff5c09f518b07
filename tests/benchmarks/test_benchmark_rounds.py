"""How competitors are timed: slow ones less often, missing ones with a reason, cases kept between runs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import attention, worker


class Fake:
    """A worker whose calls take the seconds it is told."""

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
    workers = [Fake("ours", 0.5), Fake("slow", 2.0), Fake("hopeless", 30.0), Fake("absent", missing="no backward pass")]
    found = worker.compare(workers, "forward", rounds=3)
    assert found["rounds"] == {"ours": 3, "slow": 2, "hopeless": 1}
    assert [w.calls for w in workers] == [4, 3, 1, 0], "one call to warm up, which is the only one of the hopeless"
    assert found["ms"] == {"ours": 500.0, "slow": 2000.0, "hopeless": 30000.0, "absent": None}
    assert found["ratio"] == {"slow": 4.0, "hopeless": 60.0, "absent": None}
    assert found["missing"] == {"absent": "no backward pass"}


@pytest.mark.parametrize("wrong", [1.0, np.nan])
def test_outputs_must_agree(wrong):
    same = [Fake("ours"), Fake("peer", output=1e-6), Fake("absent", missing="x", output=wrong)]
    assert worker.largest_difference(same, "forward", 1e-5) == pytest.approx(1e-6)
    with pytest.raises(SystemExit, match=r"outputs differ from those of ours: \{'peer': "):
        worker.largest_difference([Fake("ours"), Fake("peer", output=wrong)], "forward", 1e-5)


def test_what_needs_too_much_memory_is_not_run(monkeypatch):
    monkeypatch.setattr(worker, "MEMORY", -1)
    found = worker.compiled(lambda x: x + 1, np.ones(3, np.float32))
    assert found.run is None
    assert found.missing == "needs 0.0 GiB of temporary memory"


def test_a_package_that_is_not_there_is_a_reason():
    def make():
        import a_package_that_is_not_there

        return a_package_that_is_not_there

    assert worker._prepare(make, ()) == {"all": worker.Prepared(None, "not installed: a_package_that_is_not_there")}


def test_cases_add_up_in_one_file_unless_measured_elsewhere(tmp_path):
    path, here = tmp_path / "attention.json", {"heads": 4, "versions": {"jax": "1"}}
    assert attention.earlier(path, here) == {}
    cases = {
        (T, 64, kind): {"T": T, "H": 64, "kind": kind} for T, kind in ((512, "full"), (128, "alibi"), (128, "full"))
    }
    attention.keep(path, here, cases)
    assert attention.earlier(path, here) == cases
    order = [(case["T"], case["kind"]) for case in json.loads(path.read_text(encoding="utf-8"))["cases"]]
    assert order == [(128, "full"), (128, "alibi"), (512, "full")]
    with pytest.raises(SystemExit, match="measured elsewhere or with other versions"):
        attention.earlier(path, here | {"heads": 8})
