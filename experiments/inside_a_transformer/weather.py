"""A small Chinese text written for this experiment: the weather, and what people do about it.

Every sentence names a time, a place and the weather, and its ending follows from the weather alone. A model that ends a
new combination rightly must have attended to one character several positions earlier.
"""

from __future__ import annotations

import itertools
import random

TIMES = ("今天", "明天", "后天", "周六", "周日", "早上", "晚上")
PLACES = ("", "北京", "上海", "广州", "山里", "海边", "村里")
ENDINGS = {
    "好": "我们去公园散步",
    "热": "孩子们下河游泳",
    "冷": "大家穿上厚外套",
    "闷": "打开窗户吹吹风",
    "干": "多喝水少出远门",
    "潮": "衣服总是晒不干",
}
SENTENCES_HELD_OUT = 29


def sentences() -> list[tuple[str, str]]:
    """All combinations in a random order, always the same; each is split after its comma into beginning and ending."""
    combinations = [
        (f"{when}{where}的天气很{weather}，", f"{ending}。")  # noqa: RUF001
        for when, where, (weather, ending) in itertools.product(TIMES, PLACES, ENDINGS.items())
    ]
    random.Random(0).shuffle(combinations)
    return combinations


def training_text() -> str:
    """Training sentences, one in each line."""
    return "\n".join(beginning + ending for beginning, ending in sentences()[SENTENCES_HELD_OUT:])


def held_out() -> list[tuple[str, str]]:
    """Beginnings and endings of combinations that are not in the training text."""
    return sentences()[:SENTENCES_HELD_OUT]
