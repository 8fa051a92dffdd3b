"""Arithmetic word problems of one to four worked steps, in the shape of GSM8K.

A problem is a short story about one running quantity. Each event of the story is one operation
and one line of the worked answer; a line is worded in one of several ways at random, so that the
answer's law has entropy while its number is fixed. The last line is `#### number`.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from specbench.zoo.worlds.sample import NAMES, Sample, one_of, pick, sentence_case, word_list

_THINGS = word_list(
    "apples pens coins books cards eggs shells stamps cups seeds toys stones pears plums beads "
    "candles tickets balls marbles cookies lemons roses flags keys ribbons muffins stickers nuts "
    "bricks postcards"
)
_CONTAINERS = word_list("boxes bags jars shelves baskets trays crates drawers")
_PLACES = word_list("shop garden market school park kitchen library harbour")

_TOTAL_MAX = 160


class _Event(NamedTuple):
    """One event: what the prompt tells, the equation, and the wordings of its worked line."""

    story: str
    equation: str
    total: int
    lines: tuple[str, ...]


def _start(source: random.Random, name: str, things: str, single: bool) -> _Event:
    kind = source.randrange(5)
    place = pick(source, _PLACES)
    if single and kind == 0:
        kind = 1
    if kind == 0:
        total = source.randint(3, 60)
        story = one_of(
            source,
            f"{name} has {total} {things}.",
            f"At the {place} {name} has {total} {things}.",
            f"There are {total} {things} on the table of {name}.",
        )
        return _Event(story, "", total, ())
    if kind in (1, 2):
        count, each = source.randint(2, 12), source.randint(2, 12)
        container = pick(source, _CONTAINERS)
        total = count * each
        equation = f"{count} * {each} = {total}"
        story = one_of(
            source,
            f"{name} has {count} {container} with {each} {things} each.",
            f"{name} owns {count} {container}. Each of them holds {each} {things}.",
            f"At the {place} {name} fills {count} {container} with {each} {things} each.",
        )
        lines: tuple[str, ...] = (
            f"{name} has {equation} {things} in the {container}.",
            f"The {container} hold {equation} {things}.",
            f"{count} {container} of {each} {things} make {equation} {things}.",
            f"In all {container}: {equation}.",
        )
        return _Event(story, equation, total, lines)
    first, second = source.randint(3, 60), source.randint(3, 60)
    total = first + second
    equation = f"{first} + {second} = {total}"
    if kind == 3:
        colour, other = source.sample(("red", "blue", "green", "white", "old", "new", "big"), 2)
        story = one_of(
            source,
            f"{name} has {first} {colour} {things} and {second} {other} {things}.",
            f"{name} keeps {first} {colour} and {second} {other} {things}.",
        )
        lines = (
            f"{name} has {equation} {things}.",
            f"There are {equation} {things} of both kinds.",
            f"The {colour} and the {other} {things} are {equation}.",
        )
    else:
        friend = pick(source, [other for other in NAMES if other != name])
        story = one_of(
            source,
            f"{friend} has {first} {things}. {name} has {second} more than {friend}.",
            f"{name} has {second} more {things} than {friend}, who has {first}.",
        )
        lines = (
            f"{name} has {equation} {things}.",
            f"{friend} has {first}, so {name} has {equation}.",
            f"That makes {equation} {things} for {name}.",
        )
    return _Event(story, equation, total, lines)


def _gain(source: random.Random, name: str, things: str, total: int) -> _Event:
    amount = source.randint(2, min(50, _TOTAL_MAX - total))
    place = pick(source, _PLACES)
    result = total + amount
    equation = f"{total} + {amount} = {result}"
    story = one_of(
        source,
        f"Then {name} buys {amount} more.",
        f"Later {name} finds {amount} {things} at the {place}.",
        f"{pick(source, [other for other in NAMES if other != name])} gives {name} {amount} "
        f"{things}.",
        f"{name} wins {amount} more {things}.",
    )
    lines = (
        f"With {amount} more there are {equation} {things}.",
        f"Now {name} has {equation} {things}.",
        f"After that it is {equation}.",
        f"Adding {amount} gives {equation}.",
    )
    return _Event(story, equation, result, lines)


def _loss(source: random.Random, name: str, things: str, total: int) -> _Event:
    amount = source.randint(1, min(50, total - 1))
    place = pick(source, _PLACES)
    result = total - amount
    equation = f"{total} - {amount} = {result}"
    friend = pick(source, [other for other in NAMES if other != name])
    story = one_of(
        source,
        f"Then {name} gives {amount} {things} to {friend}.",
        f"{name} loses {amount} of them at the {place}.",
        f"{name} sells {amount} {things}.",
        f"Later {friend} takes {amount} of the {things}.",
    )
    lines = (
        f"Without {amount} there are {equation} {things}.",
        f"Then {equation} {things} are left.",
        f"After that it is {equation}.",
        f"Taking away {amount} leaves {equation}.",
    )
    return _Event(story, equation, result, lines)


def _multiply(source: random.Random, name: str, things: str, total: int) -> _Event:
    factor = pick(source, [n for n in (2, 3, 4, 5) if total * n <= _TOTAL_MAX])
    result = total * factor
    equation = f"{total} * {factor} = {result}"
    word = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}[factor]
    story = one_of(
        source,
        f"A month later {name} has {word} as many.",
        f"Then the number of {things} grows to {word} as many.",
        f"After a year there are {word} as many {things}.",
    )
    lines = (
        f"{sentence_case(word)} as many is {equation}.",
        f"Now {name} has {equation} {things}.",
        f"That grows to {equation} {things}.",
    )
    return _Event(story, equation, result, lines)


def _divide(source: random.Random, name: str, things: str, total: int) -> _Event:
    parts = pick(source, [n for n in (2, 3, 4, 5, 6, 8, 10) if total % n == 0 and total > n])
    result = total // parts
    equation = f"{total} / {parts} = {result}"
    story = one_of(
        source,
        f"{name} shares all of them equally among {parts} friends.",
        f"{name} packs the {things} into {parts} equal groups.",
        f"The {things} are split equally between {parts} children.",
    )
    lines = (
        f"Each part has {equation} {things}.",
        f"Shared by {parts} that is {equation}.",
        f"Dividing by {parts} gives {equation}.",
    )
    return _Event(story, equation, result, lines)


def _price(source: random.Random, name: str, things: str, total: int) -> _Event:
    price = pick(source, [n for n in range(2, 10) if total * n <= _TOTAL_MAX])
    result = total * price
    equation = f"{total} * {price} = {result}"
    story = one_of(
        source,
        f"{name} sells all the {things} for {price} dollars each.",
        f"One of the {things} costs {price} dollars and {name} sells every one.",
    )
    lines = (
        f"The {things} bring {equation} dollars.",
        f"{name} earns {equation} dollars.",
        f"At {price} dollars each that is {equation}.",
    )
    return _Event(story, equation, result, lines)


def _next_event(
    source: random.Random, name: str, things: str, total: int, last: bool
) -> tuple[_Event, str]:
    """Draw the next event and its kind: gain, loss, multiply, divide or price."""
    kinds = ["loss", "loss"] if total > 2 else []
    if total < 110:
        kinds += ["gain", "gain"]
    if total * 2 <= 100:
        kinds.append("multiply")
    if last and any(total % n == 0 and total > n for n in (2, 3, 4, 5, 6, 8, 10)):
        kinds += ["divide", "divide"]
    if last and total <= 40:
        kinds.append("price")
    kind = pick(source, kinds)
    make = {
        "gain": _gain,
        "loss": _loss,
        "multiply": _multiply,
        "divide": _divide,
        "price": _price,
    }[kind]
    return make(source, name, things, total), kind


def _question(source: random.Random, name: str, things: str, kind: str) -> str:
    if kind == "price":
        return one_of(
            source, f"How many dollars does {name} get?", f"How much money does {name} earn?"
        )
    if kind == "divide":
        return one_of(
            source, f"How many {things} are in each part?", f"How many {things} does each one get?"
        )
    return one_of(
        source,
        f"How many {things} does {name} have now?",
        f"How many {things} are there in the end?",
        f"What is the number of {things} of {name} now?",
    )


def generate(source: random.Random) -> Sample:
    """Draw one word problem; `reference` is its final number."""
    name, things = pick(source, NAMES), pick(source, _THINGS)
    steps = source.choices((1, 2, 3, 4), weights=(15, 35, 35, 15))[0]
    event = _start(source, name, things, single=steps == 1)
    events, kind = [event], "start"
    solved = 1 if event.equation else 0
    while solved < steps:
        solved += 1
        event, kind = _next_event(source, name, things, events[-1].total, solved == steps)
        events.append(event)
    final = str(events[-1].total)
    prompt = " ".join([event.story for event in events] + [_question(source, name, things, kind)])
    worked = [pick(source, event.lines) for event in events if event.equation]
    return Sample((prompt,), ("\n".join([*worked, f"#### {final}"]),), final)
