"""A small Chinese text of our own: what the weather is like, and what one does about it.

Every sentence names a time, a place and the weather, and ends with what follows from the weather alone. So a model that
continues a new combination rightly has looked back at one character, several places earlier.
"""

from __future__ import annotations

import itertools
import random

TIMES = ("今天", "明天", "后天", "周六", "周日", "早上", "晚上")
PLACES = ("", "北京", "上海", "广州", "山里", "海边", "村里")
WHAT_FOLLOWS = {
    "好": "我们去公园散步",
    "热": "孩子们下河游泳",
    "冷": "大家穿上厚外套",
    "闷": "打开窗户吹吹风",
    "干": "多喝水少出远门",
    "潮": "衣服总是晒不干",
}
SENTENCES_HELD_OUT = 29


def sentences() -> list[tuple[str, str]]:
    """All combinations in a fixed random order, each cut behind its comma: what is given, and what follows."""
    found = [
        (f"{when}{where}的天气很{weather}，", f"{follows}。")  # noqa: RUF001
        for when, where, (weather, follows) in itertools.product(TIMES, PLACES, WHAT_FOLLOWS.items())
    ]
    random.Random(0).shuffle(found)
    return found


def training_text() -> str:
    """One sentence a line, without those held out."""
    return "\n".join(given + follows for given, follows in sentences()[SENTENCES_HELD_OUT:])


def held_out() -> list[tuple[str, str]]:
    """Combinations that the training text does not have."""
    return sentences()[:SENTENCES_HELD_OUT]
