"""B4: the batched product is the mapped product, by whatever name."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.batched_product import run
from experiments.batched_product.__main__ import Options, main
from tests.experiments.folder import left_behind
from tests.support.tolerances import PARITY


@pytest.fixture(scope="module")
def found():
    return run()


def test_b4_all_ways_give_the_same_numbers(found):
    for product in found.ways.values():
        assert product.shape == (10, 3, 5)
    by_hand = np.stack([a @ b for a, b in zip(np.asarray(found.left), np.asarray(found.right), strict=True)])
    np.testing.assert_allclose(found.ways["vmap of @"], by_hand, rtol=PARITY, atol=PARITY)
    assert list(found.distances()) == ["@", "einsum", "torch.bmm", "attend, whole batch"]
    assert max(found.distances().values()) < PARITY


def test_a_distance_would_be_seen(found):
    einsum = np.array(found.ways["einsum"])
    einsum[1, 0, 0] += 0.5
    wrong = found._replace(ways=found.ways | {"einsum": einsum})
    assert abs(wrong.distances()["einsum"] - 0.5) < PARITY


def test_batched_product_leaves_its_files(tmp_path, capsys):
    main(Options(out=tmp_path))
    assert "[10, 3, 4] x [10, 4, 5] -> [10, 3, 5]  by torch.bmm" in capsys.readouterr().out
    numbers = left_behind(tmp_path, "products.png")
    assert np.shape(numbers["products"]) == (10, 3, 5)
