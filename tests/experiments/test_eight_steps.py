"""B7: the whole numbers and outputs of self-attention in eight steps, and the walk-through."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import eight_steps
from experiments.eight_steps.__main__ import Options, main
from tests.experiments.folder import left_behind
from tests.support.tolerances import FORWARD

OUTPUTS = {
    "unscaled": [[1.9366, 6.6831, 1.5951], [2.0000, 7.9640, 0.0540], [1.9997, 7.7599, 0.3584]],
    "scaled by 1/sqrt(3)": [[1.8639, 6.3194, 1.7042], [1.9991, 7.8141, 0.2735], [1.9926, 7.4796, 0.7359]],
}


@pytest.fixture(scope="module")
def steps():
    return eight_steps.run()


def test_b7_eight_steps_whole_numbers(steps):
    assert steps.key.tolist() == [[0, 1, 1], [4, 4, 0], [2, 3, 1]]
    assert steps.query.tolist() == [[1, 0, 2], [2, 2, 2], [2, 1, 3]]
    assert steps.value.tolist() == [[1, 2, 3], [2, 8, 0], [2, 6, 3]]
    assert steps.raw_scores.tolist() == [[2, 4, 4], [4, 16, 12], [4, 12, 10]]


@pytest.mark.parametrize("rule", OUTPUTS)
def test_b7_eight_steps_outputs(steps, rule):
    mixed = steps.mixed[rule]
    assert np.round(np.asarray(mixed.output, np.float64), 4).tolist() == OUTPUTS[rule]
    np.testing.assert_allclose(mixed.weights.sum(-1), 1, rtol=FORWARD["float32"])
    np.testing.assert_allclose(mixed.weighted_values.sum(1), mixed.output, rtol=FORWARD["float32"])


def test_b7_eight_steps_claims(steps):
    plain, scaled = steps.mixed.values()
    assert round(float(plain.weights[1, 1]), 4) == 0.9820
    assert round(float(scaled.weights[1, 1]), 4) == 0.9088
    assert steps.raw_scores[1, 1] - steps.raw_scores[1, 2] == 4


def test_eight_steps_prints_a_walk_through(capsys, tmp_path):
    main(Options(out=tmp_path))
    lines = capsys.readouterr().out.splitlines()
    numbered = [line[0] for line in lines if line[:1].isdigit()]
    assert numbered == list("1234" + "5678" * 2)
    assert "    query 2  [ 4 16 12]" in lines
    for rows in OUTPUTS.values():
        for i, row in enumerate(rows, 1):
            assert f"    output {i}  [{' '.join(f'{x:.4f}' for x in row)}]" in lines
    left_behind(tmp_path, "steps.png")
