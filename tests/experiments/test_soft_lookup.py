"""B6: a query changes the weights of the picture, and finds the title that matches."""

from __future__ import annotations

import math

import pytest

from experiments.soft_lookup.experiment import SHOPPER, THINGS, TITLES, Config, run
from experiments.soft_lookup.report import Options, main
from tests.experiments.outputs import read_numbers
from tests.support.tolerances import FORWARD

CLOSE = {"rel": FORWARD["float32"]}


def softmax_by_hand(products: dict[str, float]) -> dict[str, float]:
    total = sum(math.exp(x) for x in products.values())
    return {name: math.exp(x) / total for name, x in products.items()}


def test_b6_without_a_query_weights_are_saliencies():
    total = sum(saliency for saliency, _ in THINGS.values())
    assert run().without_query == pytest.approx(
        {name: saliency / total for name, (saliency, _) in THINGS.items()}, **CLOSE
    )


def test_b6_living_things_are_person_and_tree():
    weights = run().living_things
    alive = {name: math.log(saliency) + 8.0 * features[0] for name, (saliency, features) in THINGS.items()}
    assert weights == pytest.approx(softmax_by_hand(alive), **CLOSE)
    assert sorted(weights, key=weights.get)[-2:] == ["tree", "person"]
    assert weights["tree"] + weights["person"] > 0.99


def test_b6_the_title_that_matches_takes_nine_tenths():
    results = run()
    products = {name: 1.5 * sum(a * b for a, b in zip(SHOPPER, key, strict=True)) for name, (_, key) in TITLES.items()}
    assert results.shop == pytest.approx(softmax_by_hand(products), **CLOSE)
    assert 0.88 < results.shop["breathable running shoes"] < 0.95
    assert results.shop["high heels"] < 0.02
    assert results.price == pytest.approx(
        sum(results.shop[name] * price for name, (price, _) in TITLES.items()), **CLOSE
    )


def test_a_query_without_sharpness_changes_nothing():
    results = run(Config(picture_sharpness=0.0, shop_sharpness=0.0))
    assert results.living_things == pytest.approx(results.without_query, **CLOSE)
    assert set(results.shop.values()) == {0.25}


def test_soft_lookup_writes_its_files(tmp_path, capsys):
    main(Options(out=tmp_path))
    assert "expected price             64.55" in capsys.readouterr().out
    numbers = read_numbers(tmp_path, "lookups.png")
    assert list(numbers) == ["without_query", "living_things", "shop", "price"]
