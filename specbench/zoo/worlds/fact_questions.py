"""Questions over given facts; the answer quotes one or two facts and concludes."""

from __future__ import annotations

import random
from typing import NamedTuple

from specbench.zoo.worlds.sample import NAMES, Sample, one_of, pick, word_list

_TOWN_STARTS = word_list("Ri Mol Ter Bas Kel Nor Vel Sar Lun Dor Fen Gal")
_TOWN_ENDS = word_list("vo den by ton mar ga lis wick")
_FAMOUS = word_list("cheese bells glass wine honey silk apples clocks towers bridges")
_JOBS = word_list("baker teacher painter pilot nurse farmer writer tailor doctor singer")
_PETS = word_list("dog cat parrot horse rabbit goat fox owl")
_COLOURS = word_list("red blue green white black yellow grey purple")


class _Person(NamedTuple):
    """One person of the facts."""

    name: str
    town: str
    job: str
    pet: str
    colour: str


def _facts(person: _Person) -> tuple[str, ...]:
    return (
        f"{person.name} lives in {person.town}.",
        f"{person.name} works as a {person.job}.",
        f"{person.name} has a {person.colour} {person.pet}.",
    )


def _direct(source: random.Random, person: _Person) -> tuple[str, str]:
    name = person.name
    return one_of(
        source,
        (
            f"Where does {name} live?",
            f"{name} lives in {person.town}. The answer is {person.town}.",
        ),
        (
            f"What is the job of {name}?",
            f"{name} works as a {person.job}. The answer is {person.job}.",
        ),
        (
            f"What colour is the pet of {name}?",
            f"{name} has a {person.colour} {person.pet}. The answer is {person.colour}.",
        ),
        (
            f"Which pet does {name} have?",
            f"{name} has a {person.colour} {person.pet}. The answer is {person.pet}.",
        ),
    )


def _two_hop(source: random.Random, person: _Person, famous: str) -> tuple[str, str]:
    name, town = person.name, person.town
    return one_of(
        source,
        (
            f"What is the town of {name} famous for?",
            f"{name} lives in {town}. {town} is famous for {famous}. The answer is {famous}.",
        ),
        (
            f"Who lives in the town that is famous for {famous}?",
            f"{town} is famous for {famous}. {name} lives in {town}. The answer is {name}.",
        ),
        (
            f"Where does the {person.job} live?",
            f"{name} works as a {person.job}. {name} lives in {town}. The answer is {town}.",
        ),
        (
            f"What is the job of the one who has the {person.pet}?",
            f"{name} has a {person.colour} {person.pet}. {name} works as a {person.job}. "
            f"The answer is {person.job}.",
        ),
    )


def generate(source: random.Random) -> Sample:
    """Draw facts about two or three people; `reference` is the whole expected answer."""
    count = source.randint(2, 3)
    towns: list[str] = []
    while len(towns) < count:
        town = pick(source, _TOWN_STARTS) + pick(source, _TOWN_ENDS)
        if town not in towns:
            towns.append(town)
    columns = (
        source.sample(NAMES, count),
        towns,
        source.sample(_JOBS, count),
        source.sample(_PETS, count),
        source.sample(_COLOURS, count),
    )
    people = [_Person(*values) for values in zip(*columns, strict=True)]
    famous = source.sample(_FAMOUS, count)
    facts = [fact for person in people for fact in _facts(person)]
    facts += [f"{town} is famous for {thing}." for town, thing in zip(towns, famous, strict=True)]
    source.shuffle(facts)
    asked = source.randrange(count)
    if source.random() < 0.5:
        question, answer = _direct(source, people[asked])
    else:
        question, answer = _two_hop(source, people[asked], famous[asked])
    return Sample((f"{' '.join(facts)}\n{question}",), (answer,), answer)
