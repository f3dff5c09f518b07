"""Tables of the words of the grammar, in English and Chinese, with their forms and possible combinations.

Each noun has a kind, and verbs name the kinds of their subjects and objects; `GROUPS` are names for several kinds.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

GROUPS = {
    "people": ("name", "pronoun", "person", "role"),
    "animate": ("name", "pronoun", "person", "role", "animal"),
    "text": ("press", "work"),
    "object": ("thing", "machine"),
    "belonging": ("press", "work", "thing", "machine"),
    "goods": ("food", "press", "work", "thing", "machine", "plant"),
    "any": ("name", "pronoun", "person", "role", "animal", "food", "press", "work", "thing", "machine", "plant"),
}


class Noun(NamedTuple):
    """A noun, a name or a pronoun; names and pronouns have no classifier."""

    kind: str
    word: str
    second_form: str
    """Plural of a noun, object form of a pronoun; a name again."""
    chinese: str
    classifier: str


class Verb(NamedTuple):
    """A verb: `subjects` and `objects` are kinds or groups of nouns, and `objects` is "-" for an intransitive verb."""

    word: str
    third_person: str
    chinese: str
    subjects: str
    objects: str
    aspect: str
    """"action" or "state"; only actions have a place and a time."""


class Adjective(NamedTuple):
    """An adjective for some kinds of nouns; one English word may have several entries, with different translations."""

    word: str
    chinese: tuple[str, ...]
    kinds: tuple[str, ...]


class Determiner(NamedTuple):
    """A determiner; "CL" in the Chinese is replaced by the classifier of the noun."""

    word: str
    number: str
    chinese: tuple[str, ...]


CLASSIFIER = "CL"
COMMA = "\uff0c"
"""The full-width comma of Chinese text."""

_NAME_TABLE = """
Tom 汤姆    Jerry 杰瑞    Mary 玛丽    Anna 安娜    John 约翰    Peter 彼得    Lucy 露西    Jack 杰克
Alice 爱丽丝    David 大卫    Emma 艾玛    Paul 保罗
"""

_PRONOUN_TABLE = """
I me 我
you you 你
he him 他
she her 她
we us 我们
they them 他们
"""
THIRD_PERSON = ("he", "she")
FIRST_PERSON = ("I", "we")
"""Pronouns of the first person. They do not combine with each other: "I help us" is no sentence."""

_NOUN_TABLE = """
role    teacher     teachers      老师    位
role    doctor      doctors       医生    位
role    student     students      学生    个
role    friend      friends       朋友    个
role    neighbour   neighbours    邻居    个
person  boy         boys          男孩    个
person  girl        girls         女孩    个
person  child       children      孩子    个
person  man         men           男人    个
person  woman       women         女人    个
person  farmer      farmers       农民    个
person  driver      drivers       司机    位
person  singer      singers       歌手    位
animal  cat         cats          猫      只
animal  dog         dogs          狗      只
animal  mouse       mice          老鼠    只
animal  bird        birds         鸟      只
animal  horse       horses        马      匹
animal  cow         cows          牛      头
animal  pig         pigs          猪      头
animal  sheep       sheep         羊      只
animal  rabbit      rabbits       兔子    只
animal  monkey      monkeys       猴子    只
animal  tiger       tigers        老虎    只
animal  wolf        wolves        狼      只
animal  fox         foxes         狐狸    只
animal  snake       snakes        蛇      条
food    apple       apples        苹果    个
food    orange      oranges       橙子    个
food    pear        pears         梨      个
food    banana      bananas       香蕉    根
food    carrot      carrots       胡萝卜  根
food    potato      potatoes      土豆    个
food    egg         eggs          鸡蛋    个
food    fish        fish          鱼      条
food    cake        cakes         蛋糕    块
food    biscuit     biscuits      饼干    块
press   newspaper   newspapers    报纸    份
press   magazine    magazines     杂志    本
press   dictionary  dictionaries  词典    本
work    book        books         书      本
work    novel       novels        小说    部
work    letter      letters       信      封
work    poem        poems         诗      首
work    diary       diaries       日记    本
thing   table       tables        桌子    张
thing   chair       chairs        椅子    把
thing   bed         beds          床      张
thing   cup         cups          杯子    个
thing   knife       knives        刀      把
thing   umbrella    umbrellas     雨伞    把
thing   hat         hats          帽子    顶
thing   shirt       shirts        衬衫    件
thing   coat        coats         外套    件
thing   box         boxes         箱子    个
machine car         cars          汽车    辆
machine bicycle     bicycles      自行车  辆
machine lamp        lamps         灯      盏
machine clock       clocks        钟      座
machine computer    computers     电脑    台
machine camera      cameras       相机    台
machine phone       phones        手机    部
machine piano       pianos        钢琴    架
plant   flower      flowers       花      朵
plant   rose        roses         玫瑰    朵
plant   tree        trees         树      棵
"""

_VERB_TABLE = """
chase       chases       追逐  animate  animate    action
follow      follows      跟随  animate  animate    action
watch       watches      观察  animate  animate    action
protect     protects     保护  animate  animate    action
help        helps        帮助  animate  animate    action
attack      attacks      攻击  animal   animate    action
bite        bites        咬    animal   animate    action
catch       catches      抓    animate  animal     action
feed        feeds        喂    people   animal     action
visit       visits       拜访  people   people     action
teach       teaches      教    people   people     action
greet       greets       问候  people   people     action
invite      invites      邀请  people   people     action
thank       thanks       感谢  people   people     action
praise      praises      表扬  people   people     action
eat         eats         吃    animate  food       action
buy         buys         买    people   goods      action
sell        sells        卖    people   goods      action
draw        draws        画    people   any        action
seek        seeks        寻找  animate  any        action
choose      chooses      选择  people   goods      action
wash        washes       洗    people   thing      action
carry       carries      搬    people   thing      action
borrow      borrows      借    people   belonging  action
use         uses         使用  people   object     action
repair      repairs      修理  people   machine    action
read        reads        读    people   text       action
write       writes       写    people   work       action
translate   translates   翻译  people   work       action
love        loves        爱    animate  animate    state
like        likes        喜欢  animate  any        state
fear        fears        害怕  animate  animate    state
hate        hates        讨厌  animate  animate    state
need        needs        需要  animate  any        state
trust       trusts       信任  animate  people     state
miss        misses       想念  people   animate    state
know        knows        认识  people   people     state
respect     respects     尊敬  people   people     state
admire      admires      佩服  people   people     state
understand  understands  理解  people   work       state
swim        swims        游泳  animate  -          action
run         runs         跑步  animate  -          action
sleep       sleeps       睡觉  animate  -          action
rest        rests        休息  animate  -          action
play        plays        玩    animate  -          action
sing        sings        唱歌  people   -          action
dance       dances       跳舞  people   -          action
cry         cries        哭    people   -          action
laugh       laughs       笑    people   -          action
work        works        工作  people   -          action
study       studies      学习  people   -          action
walk        walks        散步  people   -          action
"""

_ADJECTIVE_TABLE = """
big          大       animal food thing machine plant
small        小       animal food thing machine plant
black        黑       animal thing machine
white        白       animal thing machine
red          红       thing machine
new          新       press work thing machine
old          旧       press work thing machine
old          年老+的  role animal
clever       聪明+的  role person animal
brave        勇敢+的  role person animal
happy        快乐+的  role person animal
friendly     友好+的  role person
kind         善良+的  role person
busy         忙碌+的  role person
tired        疲倦+的  role person animal
hungry       饥饿+的  animal
beautiful    漂亮+的  animal thing machine plant
expensive    昂贵+的  food thing machine
cheap        便宜+的  food thing machine
fresh        新鲜+的  food
interesting  有趣+的  press work
"""

_DETERMINER_TABLE = """
a      singular  一+CL
this   singular  这+CL
that   singular  那+CL
these  plural    这些
those  plural    那些
some   plural    一些
many   plural    很多
two    plural    两+CL
three  plural    三+CL
four   plural    四+CL
five   plural    五+CL
six    plural    六+CL
seven  plural    七+CL
eight  plural    八+CL
nine   plural    九+CL
ten    plural    十+CL
"""

_POSSESSIVE_TABLE = """
my     both  我+的
your   both  你+的
his    both  他+的
her    both  她+的
our    both  我们+的
their  both  他们+的
"""

_PLACE_TABLE = """
in the park               在 公园 里      0 2 0
in the garden             在 花园 里      0 2 0
in the kitchen            在 厨房 里      0 2 0
in the library            在 图书馆 里    0 2 0
in the classroom          在 教室 里      0 2 0
in the forest             在 森林 里      0 2 0
in the village            在 村子 里      0 2 0
in the city               在 城市 里      0 2 0
at home                   在 家 里        0 1 0
at school                 在 学校         0 1
at the station            在 车站         0 2
in the street             在 街 上        0 2 0
on the bridge             在 桥 上        0 2 0
on the beach              在 海滩 上      0 2 0
under the tree            在 树 下        0 2 0
behind the house          在 房子 后面    0 2 0
near the river            在 河 附近      0 2 0
in front of the school    在 学校 前面    0 4 1
"""

_TIME_TABLE = """
today              今天         0
every day          每 天        0 1
every week         每 周        0 1
every morning      每 天 早上   0 -1 1
every evening      每 天 晚上   0 -1 1
in the morning     早上         2
in the afternoon   下午         2
in the evening     晚上         2
at night           夜里         1
on Sundays         星期天       1
in summer          夏天         1
in winter          冬天         1
"""


def _rows(table: str) -> list[list[str]]:
    """The words of each line of a table."""
    return [line.split() for line in table.strip().splitlines()]


def _set_phrases(table: str) -> tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]], ...]:
    """Set phrases: English words, Chinese words, and the index of the English word that each Chinese one translates."""
    phrases = []
    for words in _rows(table):
        english = tuple(word for word in words if word.isalpha() and word.isascii())
        chinese = tuple(word for word in words if not word.isascii())
        phrases.append((english, chinese, tuple(map(int, words[len(english) + len(chinese) :]))))
    return tuple(phrases)


def _nouns() -> dict[str, Noun]:
    names = _NAME_TABLE.split()
    nouns = [Noun("name", name, name, chinese, "") for name, chinese in zip(names[::2], names[1::2], strict=True)]
    nouns += [Noun("pronoun", *row, "") for row in _rows(_PRONOUN_TABLE)]
    nouns += [Noun(*row) for row in _rows(_NOUN_TABLE)]
    return {noun.word: noun for noun in nouns}


NOUNS = _nouns()
"""Names, pronouns and nouns by their base form."""
VERBS = {row[0]: Verb(*row) for row in _rows(_VERB_TABLE)}
ADJECTIVES = tuple(Adjective(row[0], tuple(row[1].split("+")), tuple(row[2:])) for row in _rows(_ADJECTIVE_TABLE))
DETERMINERS = tuple(Determiner(row[0], row[1], tuple(row[2].split("+"))) for row in _rows(_DETERMINER_TABLE))
POSSESSIVES = tuple(Determiner(row[0], row[1], tuple(row[2].split("+"))) for row in _rows(_POSSESSIVE_TABLE))
PLACES, TIMES = _set_phrases(_PLACE_TABLE), _set_phrases(_TIME_TABLE)


@functools.cache
def nouns_of(group: str) -> tuple[str, ...]:
    """Base forms of all nouns of a kind, or of all kinds of a group."""
    kinds = GROUPS.get(group, (group,))
    return tuple(word for word, noun in NOUNS.items() if noun.kind in kinds)
