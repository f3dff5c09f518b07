"""Words and sentence forms of reports: agents and their deeds, statements of facts, and fillers."""

from __future__ import annotations

from typing import NamedTuple

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


class Deed(NamedTuple):
    """A verb in past tense and past participle, and its objects: "destroyed houses", "houses were destroyed"."""

    past: str
    participle: str
    objects: str


class Subject(NamedTuple):
    """A subject of news. A summary lists deeds in the order of this table."""

    agents: tuple[str, ...]
    arrival: str
    pronoun: str
    deeds: tuple[Deed, ...]


SUBJECTS = (
    Subject(
        ("a storm", "a flood", "a fire", "an earthquake", "a landslide", "a tornado"),
        "hit {city}",
        "It",
        (
            Deed("destroyed", "destroyed", "houses"),
            Deed("damaged", "damaged", "bridges"),
            Deed("blocked", "blocked", "roads"),
            Deed("closed", "closed", "schools"),
            Deed("injured", "injured", "people"),
        ),
    ),
    Subject(
        ("the Lions", "the Tigers", "the Eagles", "the Bears", "the Wolves", "the Sharks"),
        "played in {city}",
        "They",
        (
            Deed("scored", "scored", "goals"),
            Deed("missed", "missed", "chances"),
            Deed("replaced", "replaced", "players"),
            Deed("received", "received", "warnings"),
            Deed("signed", "signed", "shirts"),
        ),
    ),
    Subject(
        ("some thieves", "some robbers", "some burglars", "some pirates", "some bandits", "some swindlers"),
        "struck in {city}",
        "They",
        (
            Deed("stole", "stolen", "paintings"),
            Deed("took", "taken", "watches"),
            Deed("emptied", "emptied", "safes"),
            Deed("broke", "broken", "windows"),
            Deed("forced", "forced", "doors"),
        ),
    ),
    Subject(
        ("some volunteers", "some students", "some engineers", "some soldiers", "some gardeners", "some scouts"),
        "came to {city}",
        "They",
        (
            Deed("built", "built", "huts"),
            Deed("dug", "dug", "wells"),
            Deed("repaired", "repaired", "roofs"),
            Deed("painted", "painted", "fences"),
            Deed("planted", "planted", "trees"),
        ),
    ),
)
AGENTS = tuple(agent for subject in SUBJECTS for agent in subject.agents)

WHO = (
    "Everyone is talking about {agent} .",
    "The first page of the newspaper shows {agent} .",
    "No one had been prepared for {agent} .",
    "The news of the week is about {agent} .",
)
WHERE = (
    "It all happened in {city} .",
    "{city} is the city where it happened .",
    "The scene of the events was {city} .",
    "The city in question is {city} .",
)
WHEN = (
    "It happened on {day} .",
    "All this was on {day} .",
    "The day of the events was {day} .",
    "{day} was the day when it happened .",
)
WHAT = (
    "In the end {number} {objects} were {participle} .",
    "It is certain that {number} {objects} were {participle} .",
    "By the evening {number} {objects} had been {participle} .",
    "The newspaper counts {number} {objects} that were {participle} .",
)
FILLERS = (
    "The mayor of {city} sent a letter .",
    "A reporter from {city} asked many questions .",
    "A train from {city} was late that week .",
    "Nothing of the kind was seen in {city} .",
    "The next meeting will be on {day} .",
    "The weather is said to be fine on {day} .",
    "A reader has promised to write again on {day} .",
    "The newspaper will print more pictures on {day} .",
    "About {number} reporters wanted to see it .",
    "The oldest reader of the newspaper has {number} children .",
    "The story has been told {number} times .",
    "Last year everyone was talking about {agent} .",
    "Nobody knows the reason .",
    "Many people stayed awake until late .",
    "The mayor has given no answer .",
    "An old man sold tea and bread .",
)
"""Sentences that do not matter; they name other cities, days, numbers and agents than those of the report."""
