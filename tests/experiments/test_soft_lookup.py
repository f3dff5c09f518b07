"""B6: a query re-weights the picture, and finds the title that matches."""

from __future__ import annotations

import math

import pytest

from experiments.soft_lookup import SHOPPER, THINGS, TITLES, Config, run
from experiments.soft_lookup.__main__ import Options, main
from tests.experiments.folder import left_behind
from tests.support.tolerances import FORWARD

CLOSE = {"rel": FORWARD["float32"]}


def softmax_by_hand(products: dict[str, float]) -> dict[str, float]:
    total = sum(math.exp(x) for x in products.values())
    return {name: math.exp(x) / total for name, x in products.items()}


def test_b6_without_a_query_the_saliencies_decide():
    total = sum(saliency for saliency, _ in THINGS.values())
    assert run().unasked == pytest.approx({name: saliency / total for name, (saliency, _) in THINGS.items()}, **CLOSE)


def test_b6_living_things_are_person_and_tree():
    found = run().living_things
    alive = {name: math.log(saliency) + 8.0 * features[0] for name, (saliency, features) in THINGS.items()}
    assert found == pytest.approx(softmax_by_hand(alive), **CLOSE)
    assert sorted(found, key=found.get)[-2:] == ["tree", "person"]
    assert found["tree"] + found["person"] > 0.99


def test_b6_the_title_that_matches_takes_nine_tenths():
    found = run()
    products = {name: 1.5 * sum(a * b for a, b in zip(SHOPPER, key, strict=True)) for name, (_, key) in TITLES.items()}
    assert found.shop == pytest.approx(softmax_by_hand(products), **CLOSE)
    assert 0.88 < found.shop["breathable running shoes"] < 0.95
    assert found.shop["high heels"] < 0.02
    assert found.price == pytest.approx(sum(found.shop[name] * price for name, (price, _) in TITLES.items()), **CLOSE)


def test_a_query_without_sharpness_asks_nothing():
    found = run(Config(picture_sharpness=0.0, shop_sharpness=0.0))
    assert found.living_things == pytest.approx(found.unasked, **CLOSE)
    assert set(found.shop.values()) == {0.25}


def test_soft_lookup_leaves_its_files(tmp_path, capsys):
    main(Options(out=tmp_path))
    assert "expected price             64.55" in capsys.readouterr().out
    numbers = left_behind(tmp_path, "lookups.png")
    assert list(numbers) == ["unasked", "living_things", "shop", "price"]
