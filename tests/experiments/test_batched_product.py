"""B4: all ways to compute a batched product give the mapped product."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.batched_product import run
from experiments.batched_product.report import Options, main
from tests.experiments.outputs import read_numbers
from tests.support.tolerances import PARITY


@pytest.fixture(scope="module")
def results():
    return run()


def test_b4_all_ways_give_the_same_numbers(results):
    for product in results.ways.values():
        assert product.shape == (10, 3, 5)
    by_hand = np.stack([a @ b for a, b in zip(np.asarray(results.left), np.asarray(results.right), strict=True)])
    np.testing.assert_allclose(results.ways["vmap of @"], by_hand, rtol=PARITY, atol=PARITY)
    assert list(results.distances()) == ["@", "einsum", "torch.bmm", "attend, whole batch"]
    assert max(results.distances().values()) < PARITY


def test_a_wrong_product_has_a_distance(results):
    einsum = np.array(results.ways["einsum"])
    einsum[1, 0, 0] += 0.5
    wrong = results._replace(ways=results.ways | {"einsum": einsum})
    assert abs(wrong.distances()["einsum"] - 0.5) < PARITY


def test_batched_product_writes_its_files(tmp_path, capsys):
    main(Options(out=tmp_path))
    assert "[10, 3, 4] x [10, 4, 5] -> [10, 3, 5]  by torch.bmm" in capsys.readouterr().out
    numbers = read_numbers(tmp_path, "products.png")
    assert np.shape(numbers["products"]) == (10, 3, 5)
