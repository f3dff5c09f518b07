"""Words and sentence forms of passages: people, kinds of facts about them, statements, updates and questions."""

from __future__ import annotations

from typing import NamedTuple


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


NAMES = _words(
    "Mary John Anna Peter Lucy Tom Emma Paul Sarah Mark Julia Henry Alice Simon Clara David Nina Oscar Laura Felix"
)
CITIES = _words(
    "Paris Rome London Berlin Madrid Vienna Lisbon Oslo Athens Dublin Prague Warsaw Cairo Tokyo Lima Boston"
)
PROFESSIONS = _words(
    "doctor teacher baker pilot lawyer engineer artist farmer nurse painter judge actor writer cook sailor gardener"
)
COLOURS = _words("red blue green yellow orange purple black white grey brown pink violet gold silver turquoise crimson")
PETS = _words("cat dog rabbit parrot hamster goldfish turtle pony owl goat duck lizard mouse canary hen snake")
INSTRUMENTS = _words(
    "piano violin guitar flute drum trumpet cello harp clarinet accordion oboe banjo organ trombone viola mandolin"
)
THINGS = _words("lamp key book umbrella map rope basket hammer letter mirror candle bottle ladder blanket coin knife")


class Kind(NamedTuple):
    """A kind of fact, its possible values, and the sentence forms about it; `{a}` is the article of the value."""

    values: tuple[str, ...]
    statements: tuple[str, ...]
    updates: tuple[str, ...]
    questions: tuple[str, ...]


KINDS = (
    Kind(
        CITIES,
        statements=(
            "{name} lives in {value} .",
            "The home of {name} is in {value} .",
            "{value} is the city where {name} lives .",
            "In {value} you will find the home of {name} .",
        ),
        updates=(
            "{name} moved to {value} .",
            "Later {name} moved to {value} .",
            "{value} is the new home of {name} .",
        ),
        questions=(
            "Where does {name} live ?",
            "In which city does {name} live ?",
            "Which city is the home of {name} ?",
        ),
    ),
    Kind(
        PROFESSIONS,
        statements=(
            "{name} is {a} {value} .",
            "{name} works as {a} {value} .",
            "The {value} is called {name} .",
            "By profession {name} is {a} {value} .",
        ),
        updates=(
            "{name} became {a} {value} .",
            "Now {name} works as {a} {value} .",
            "The new {value} is called {name} .",
        ),
        questions=(
            "What is the profession of {name} ?",
            "What does {name} work as ?",
            "Which job does {name} have ?",
        ),
    ),
    Kind(
        COLOURS,
        statements=(
            "{name} likes {value} best .",
            "The favourite colour of {name} is {value} .",
            "It is {value} that {name} likes best .",
            "{name} prefers {value} to all other colours .",
        ),
        updates=(
            "Now {name} likes {value} best .",
            "Later {name} came to like {value} best .",
            "The new favourite colour of {name} is {value} .",
        ),
        questions=(
            "Which colour does {name} like best ?",
            "What is the favourite colour of {name} ?",
        ),
    ),
    Kind(
        PETS,
        statements=(
            "{name} has {a} {value} .",
            "The pet of {name} is {a} {value} .",
            "The {value} belongs to {name} .",
            "The owner of the {value} is {name} .",
        ),
        updates=(
            "Now {name} has {a} {value} instead .",
            "The new pet of {name} is {a} {value} .",
            "{name} gave the pet away and took {a} {value} .",
        ),
        questions=(
            "Which animal does {name} have ?",
            "Which animal is the pet of {name} ?",
            "What kind of pet does {name} have ?",
        ),
    ),
    Kind(
        INSTRUMENTS,
        statements=(
            "{name} plays the {value} .",
            "The instrument of {name} is the {value} .",
            "It is the {value} that {name} plays .",
            "You will hear the {value} when {name} plays .",
        ),
        updates=(
            "Now {name} plays the {value} .",
            "{name} switched to the {value} .",
            "The new instrument of {name} is the {value} .",
        ),
        questions=(
            "Which instrument does {name} play ?",
            "What is the instrument of {name} ?",
        ),
    ),
    Kind(
        THINGS,
        statements=(
            "{name} carries {a} {value} .",
            "The bag of {name} holds {a} {value} .",
            "The {value} is in the bag of {name} .",
            "There is {a} {value} in the bag of {name} .",
        ),
        updates=(
            "Now {name} carries {a} {value} instead .",
            "{name} emptied the bag and packed {a} {value} .",
            "In the bag of {name} there is now {a} {value} instead .",
        ),
        questions=(
            "What does {name} carry ?",
            "What is in the bag of {name} ?",
        ),
    ),
)


def article(word: str) -> str:
    """`a` or `an`, by the first letter: no word of the tables begins with a silent h or with u as in unit."""
    return "an" if word[0] in "aeiou" else "a"
