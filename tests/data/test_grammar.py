"""Sentences of the grammar are right in both languages, aligned word by word, of the asked length and combinations."""

from __future__ import annotations

import functools
import itertools
import random
import re

import pytest

from jax_attention import data
from jax_attention.data import grammar_words as table
from jax_attention.data.grammar_phrases import Fact, Speaker, known
from tests.support.tiers import slow_except_every

GRAMMAR = data.Grammar()


@functools.cache
def sample(kind: str) -> list[data.Pair]:
    return GRAMMAR.pairs(1, 2000, (4, 16), kind)


@functools.cache
def every() -> list[data.Pair]:
    return [pair for kind in ("training", "held_out", "all") for pair in sample(kind)]


def facts_of(pair: data.Pair) -> list[Fact]:
    return [Fact(*fact.split(" ")) for fact in pair.note.split("; ") if fact]


# --- What sentences say ----------------------------------------------------------------------------------------------

COMMA = table.COMMA
TRANSLATED = {
    ("Tom", "chase", "Jerry"): {
        "Tom chases Jerry": ("汤姆 追逐 杰瑞", (0, 1, 2)),
        "Tom does not chase Jerry": ("汤姆 不 追逐 杰瑞", (0, 2, 3, 4)),
        "Tom can chase Jerry": ("汤姆 能 追逐 杰瑞", (0, 1, 2, 3)),
        "does Tom chase Jerry": ("汤姆 追逐 杰瑞 吗", (1, 2, 3, 0)),
        "Tom chases Jerry today": ("汤姆 今天 追逐 杰瑞", (0, 3, 1, 2)),
        "Tom chases Jerry in the park": ("汤姆 在 公园 里 追逐 杰瑞", (0, 3, 5, 3, 1, 2)),
        "Tom chases Jerry in the park every day": ("汤姆 每 天 在 公园 里 追逐 杰瑞", (0, 6, 7, 3, 5, 3, 1, 2)),
        "does Tom chase Jerry at home": ("汤姆 在 家 里 追逐 杰瑞 吗", (1, 4, 5, 4, 2, 3, 0)),
        "does Tom chase Jerry at home today": ("汤姆 今天 在 家 里 追逐 杰瑞 吗", (1, 6, 4, 5, 4, 2, 3, 0)),
        "Tom can chase Jerry today": ("汤姆 今天 能 追逐 杰瑞", (0, 4, 1, 2, 3)),
        "Tom does not chase Jerry at home": ("汤姆 不 在 家 里 追逐 杰瑞", (0, 2, 5, 6, 5, 3, 4)),
    },
    ("cat", "watch", "mouse"): {
        "the cat watches two mice": ("猫 观察 两 只 老鼠", (1, 2, 3, -1, 4)),
        "these cats watch the mouse": ("这些 猫 观察 老鼠", (0, 1, 2, 4)),
        "my cats watch that mouse": ("我 的 猫 观察 那 只 老鼠", (0, 0, 1, 2, 3, -1, 4)),
        "an old cat watches the mice": ("一 只 年老 的 猫 观察 老鼠", (0, -1, 1, -1, 2, 3, 5)),
        "the cat of Tom watches the mice": ("汤姆 的 猫 观察 老鼠", (3, 2, 1, 4, 6)),
    },
    ("she", "read", "book"): {
        "she reads three books": ("她 读 三 本 书", (0, 1, 2, -1, 3)),
        "she must read her book": ("她 必须 读 她 的 书", (0, 1, 2, 3, 3, 4)),
        "she does not read the old books": ("她 不 读 旧 书", (0, 2, 3, 5, 6)),
    },
    ("they", "feed", "I"): {
        "they feed me": ("他们 喂 我", (0, 1, 2)),
        "do they feed me": ("他们 喂 我 吗", (1, 2, 3, 0)),
    },
}


@pytest.mark.parametrize("fact", slow_except_every(2, TRANSLATED), ids=" ".join)
def test_sentences_are_translated_as_people_do(fact):
    speaker = Speaker(random.Random(0), known([Fact(*fact)]))
    said = [speaker.clause(transitive=True, question=i % 2 == 0).phrase for i in range(20000)]
    found = {" ".join(phrase.english): (" ".join(phrase.chinese), phrase.links) for phrase in said}
    assert {sentence: found.get(sentence) for sentence in TRANSLATED[fact]} == TRANSLATED[fact]


def test_relative_clauses_and_reasons_change_places():
    facts = [Fact("Tom", "help", "dog"), Fact("dog", "bite", "Jerry")]
    speaker = Speaker(random.Random(0), known(facts))
    said = [speaker.clause(transitive=True, question=False) for _ in range(2000)]
    found = {" ".join(x.phrase.english): (" ".join(x.phrase.chinese), x.phrase.links, x.facts) for x in said}
    wanted = ("汤姆 帮助 咬 杰瑞 的 狗", (0, 1, 5, 6, 4, 3), tuple(facts))
    assert found["Tom helps the dog that bites Jerry"] == wanted
    assert found["Tom helps the dogs that bite Jerry"] == wanted


WRITTEN = {"because": f"因为 (.+) {COMMA} 所以 (.+)", "when": f"当 (.+) 的 时候 {COMMA} (.+)"}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_second_clause_comes_first_in_chinese(name):
    conjunctions = {"and", "but", *WRITTEN}
    alone = [pair for pair in every() if [w for w in pair.source.split(" ") if w in conjunctions] == [name]]
    assert len(alone) > 100
    for pair in alone:
        first, second = re.fullmatch(WRITTEN[name], pair.target).groups()
        place, links = pair.source.split(" ").index(name), pair.alignment
        assert min(i for i in links[1 : 1 + len(first.split(" "))] if i >= 0) > place, pair
        assert max(links[-len(second.split(" ")) :]) < place, pair


def test_a_clause_has_one_clause_under_it_at_most():
    conjunctions = [[w for w in pair.source.split(" ") if w in {"and", "but", *WRITTEN}] for pair in every()]
    chains = [chain for found in conjunctions for chain in itertools.pairwise(found)]
    assert not [chain for chain in chains if {*chain} <= {*WRITTEN}]
    assert {"and", "but"} < {word for chain in chains for word in chain}


def test_questions_stand_alone():
    asked = [pair for pair in every() if pair.source.split(" ")[0] in ("do", "does")]
    assert len(asked) > 100
    assert [pair for pair in every() if "吗" in pair.target.split(" ")] == asked
    for pair in asked:
        assert pair.target.endswith(" 吗")
        assert not {"and", "but", *WRITTEN} & {*pair.source.split(" ")}


# --- What is true of every sentence ----------------------------------------------------------------------------------

MEANT = {
    **{"the": "", "does": "吗", "do": "吗", "not": "不", "can": "能", "must": "必须", "of": "的", "that": "的 那"},
    **{"and": "而且", "but": "但是", "because": "因为", "when": "当", "an": "一"},
}
PARTICLES = {*"个只位匹头条根块本封份首辆张把盏顶件座台部架朵棵", "的", "天", COMMA, "所以", "时候"}


def lexicon() -> set[tuple[str, str]]:
    """Which words translate which, read off the tables anew."""
    found = {(word, chinese) for word, texts in MEANT.items() for chinese in texts.split(" ")}
    for noun in table.THINGS.values():
        found |= {(noun.word, noun.chinese), (noun.other, noun.chinese)}
    for verb in table.ACTIONS.values():
        found |= {(verb.word, verb.chinese), (verb.third, verb.chinese)}
    for entry in (*table.QUALITIES, *table.ARTICLES, *table.OWNERS):
        found |= {(entry.word, chinese) for chinese in entry.chinese}
    for english, chinese, links in (*table.WHERE, *table.WHEN):
        found |= {(english[link], word) for word, link in zip(chinese, links, strict=True) if link >= 0}
    return found


def test_alignments_pair_words_that_mean_the_same():
    right = lexicon()
    for pair in every():
        source, target = pair.source.split(" "), pair.target.split(" ")
        assert len(pair.alignment) == len(target)
        linked = {(source[i], word) for i, word in zip(pair.alignment, target, strict=True) if i >= 0}
        assert linked <= right, (pair, linked - right)
        alone = {word for i, word in zip(pair.alignment, target, strict=True) if i < 0}
        assert alone <= PARTICLES, (pair, alone - PARTICLES)


def test_every_word_with_a_meaning_is_translated_once():
    empty = {"the", "do", "does", "in", "on", "at"}
    once = {noun.chinese for noun in table.THINGS.values()} | {verb.chinese for verb in table.ACTIONS.values()}
    for pair in every():
        source, target = pair.source.split(" "), pair.target.split(" ")
        left = {source[i] for i in set(range(len(source))) - set(pair.alignment)}
        in_front = {"of"} if "in front of" in pair.source else set()
        assert left <= empty | in_front, (pair, left)
        words = [i for i, word in zip(pair.alignment, target, strict=True) if word in once and i >= 0]
        pronouns = {"my", "your", "his", "her", "our", "their"}
        assert len(words) == len(set(words)), pair
        assert not pronouns & left


@pytest.mark.slow
def test_one_english_sentence_has_one_translation():
    short = GRAMMAR.pairs(2, 8000, (3, 5), "all")
    found: dict[str, tuple] = {}
    for pair in short:
        assert found.setdefault(pair.source, pair[:3]) == pair[:3]
    assert 6000 < len(found) < len(short), "some sentences come twice"


def test_verbs_agree_with_their_subjects():
    """Where a clause begins with a subject of one or two words and a verb follows."""
    third = {noun.word for noun in table.THINGS.values() if noun.kind == "name"} | {"he", "she"}
    base = {"I", "you", "we", "they"}
    forms = {verb.third: True for verb in table.ACTIONS.values()} | {"does": True, "do": False}
    forms |= {verb.word: False for verb in table.ACTIONS.values()}
    number = {"a": True, "an": True, "this": True, "that": True, "these": False, "those": False, "two": False}
    counts = {True: 0, False: 0}
    for pair in every():
        for clause in re.split(" (?:and|but|because|when) ", pair.source):
            words = clause.split(" ")
            one = True if words[0] in third else False if words[0] in base else None
            verb = words[1]
            if one is None and words[0] in number:
                one, verb = number[words[0]], words[2]
                noun = next(n for n in table.THINGS.values() if words[1] in n[1:3]) if verb in forms else None
                assert noun is None or words[1] == (noun.word if one else noun.other), clause
            if one is not None and verb in forms:
                assert forms[verb] is one, clause
                counts[one] += 1
    assert min(counts.values()) > 500


def test_classifiers_agree_with_their_nouns():
    classifier = {noun.chinese: noun.classifier for noun in table.THINGS.values()}
    qualities = {text for quality in table.QUALITIES for text in quality.chinese}
    counted = {*"一两三四五六七八九十这那"}
    seen = set()
    for pair in every():
        words = pair.target.split(" ")
        for i, word in enumerate(words):
            if word in counted:
                rest = itertools.dropwhile(lambda text: text in qualities, words[i + 2 :])
                noun = next(rest)
                assert words[i + 1] == classifier[noun], pair
                seen.add(noun)
    assert len(seen) > 50


LEARNED = """只猫 匹马 头牛 头猪 条蛇 条鱼 位老师 位医生 个学生 个苹果 根香蕉 块蛋糕 份报纸 本书 本杂志 部小说 封信 首诗
张桌子 张床 把椅子 把刀 把雨伞 顶帽子 件衬衫 辆汽车 辆自行车 盏灯 座钟 台电脑 部手机 架钢琴 朵花 棵树"""


def test_classifiers_are_those_that_are_taught():
    found = {noun.classifier + noun.chinese for noun in table.THINGS.values()}
    assert {*LEARNED.split()} <= found
    assert {noun.classifier for noun in table.THINGS.values()} - {""} == {text[0] for text in LEARNED.split()}


def test_nobody_does_anything_to_themselves():
    for fact in GRAMMAR.triples():
        assert fact.subject != fact.object
        assert {fact.subject, fact.object} != {"I", "we"}


# --- Lengths and vocabularies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["training", "held_out"])
@pytest.mark.parametrize("words", [(3, 3), (4, 4), (5, 7), (29, 31), (60, 60)])
def test_lengths_are_what_was_asked_for(words, kind):
    found = [len(pair.source.split(" ")) for pair in GRAMMAR.pairs(4, 30 if words[0] > 9 else 200, words, kind)]
    assert {*found} == {*range(words[0], words[1] + 1)}


def test_lengths_are_equally_likely():
    found = [len(pair.source.split(" ")) for pair in sample("training")]
    assert all(abs(found.count(n) - 2000 / 13) < 4 * (2000 / 13) ** 0.5 for n in range(4, 17))


def test_vocabularies_hold_what_is_said_and_nothing_else():
    pairs = GRAMMAR.pairs(3, 6000, (10, 20))
    for words, texts in (
        (GRAMMAR.source_words, [pair.source for pair in pairs]),
        (GRAMMAR.target_words, [pair.target for pair in pairs]),
    ):
        assert list(words) == sorted(set(words))
        assert {word for text in texts for word in text.split(" ")} == set(words)
    english, chinese = data.Words(GRAMMAR.source_words), data.Words(GRAMMAR.target_words)
    for pair in every():
        assert english.decode(english.encode(pair.source)) == pair.source
        assert chinese.decode(chinese.encode(pair.target)) == pair.target


# --- Held-out combinations -------------------------------------------------------------------------------------------


def test_held_out_combinations_are_never_trained_on():
    training, held_out = ({*GRAMMAR.triples(kind)} for kind in ("training", "held_out"))
    assert training.isdisjoint(held_out)
    assert training | held_out == {*GRAMMAR.triples()}
    assert {fact for pair in sample("training") for fact in facts_of(pair)} <= training
    told = [facts_of(pair) for pair in sample("held_out")]
    assert all(told), "each has one"
    assert {fact for facts in told for fact in facts} <= held_out
    kinds = {fact in held_out for pair in sample("all") for fact in facts_of(pair)}
    assert kinds == {True, False}


def test_notes_list_what_is_in_the_sentence():
    for pair in every():
        words, verbs = pair.source.split(" "), [verb for verb in table.ACTIONS.values() if verb.objects != "-"]
        forms = {form: verb.word for verb in verbs for form in verb[:2]}
        assert sorted(forms[word] for word in words if word in forms) == sorted(fact.verb for fact in facts_of(pair))
        for fact in facts_of(pair):
            assert {*table.THINGS[fact.subject][1:3]} & {*words}
            assert {*table.THINGS[fact.object][1:3]} & {*words}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_only_the_combination_of_three_is_new(share):
    grammar = data.Grammar(held_out=share)
    training, held_out = grammar.triples("training"), grammar.triples("held_out")
    for parts in (lambda f: f[:2], lambda f: f[1:], lambda f: f[0], lambda f: f[1], lambda f: f[2]):
        assert {parts(fact) for fact in held_out} <= {parts(fact) for fact in training}
    every = len(training) + len(held_out)
    if share < 0.9:
        assert abs(len(held_out) / every - share) < 0.01
    else:
        assert len(held_out) > len(training)


# --- A pure function of its arguments --------------------------------------------------------------------------------


def test_sentences_depend_on_the_arguments_alone():
    again = data.Grammar().pairs(1, 50, (4, 16), "held_out")
    assert again == sample("held_out")[:50]
    others = [GRAMMAR.pairs(2, 50, (4, 16), "held_out"), GRAMMAR.pairs(1, 50, (4, 15), "held_out"), sample("all")[:50]]
    assert all(other != again for other in others)
    assert GRAMMAR.pairs(0, 0) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: data.Grammar(1), ValueError, "held_out: expected a number from 0 to below 1, got 1"),
        (lambda: data.Grammar("a"), ValueError, "held_out: expected a number from 0 to below 1, got 'a'"),
        (lambda: GRAMMAR.pairs(-1, 1), ValueError, "seed: expected an int >= 0, got -1"),
        (lambda: GRAMMAR.pairs(0, 0.5), TypeError, "count: expected a Python int"),
        (lambda: GRAMMAR.pairs(0, 1, 5), TypeError, r"words: expected two numbers, \(least, most\), got 5"),
        (lambda: GRAMMAR.pairs(0, 1, (2, 4)), ValueError, "words: expected an int >= 3, got 2. The shortest"),
        (lambda: GRAMMAR.pairs(0, 1, (5, 4)), ValueError, "words: expected an int >= 5, got 4"),
        (
            lambda: GRAMMAR.pairs(0, 1, combinations="test"),
            ValueError,
            "combinations: expected 'training', .*got 'test'",
        ),
        (
            lambda: data.Grammar(0).pairs(0, 1, combinations="held_out"),
            ValueError,
            "that holds some out, got held_out=0",
        ),
    ],
)
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()
