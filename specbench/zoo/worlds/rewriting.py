"""Rewriting and summarising a given passage: most of the answer is copied from the prompt.

Copying is what prompt lookup lives on, so a passage is made of sentences drawn independently and
the answer repeats them with one stated change.
"""

from __future__ import annotations

import random

from specbench.zoo.worlds.sample import NAMES, Sample, one_of, pick, word_list

_PLACES = word_list("market bridge library station garden museum harbour bakery forest castle")
_ADJECTIVES = word_list("small round bright quiet heavy green broken strange lovely cold")
_OBJECTS = word_list("basket lamp letter clock bicycle violin kettle ladder mirror suitcase")
_ANIMALS = word_list("dog cat goat horse parrot rabbit fox owl")
_WEATHER = word_list(
    "It rained,It snowed,The sun shone,The wind was strong,The fog was thick", separator=","
)
_TIMES = word_list(
    "in the morning,at noon,in the evening,all night,before dawn,after lunch", separator=","
)
_ACTIONS = word_list("carried,painted,found,sold,repaired,lost,bought,cleaned", separator=",")
_ORDINALS = ("first", "second", "third", "fourth", "fifth")


def _sentence(source: random.Random, people: tuple[str, str]) -> str:
    person = pick(source, people)
    adjective, thing = pick(source, _ADJECTIVES), pick(source, _OBJECTS)
    return one_of(
        source,
        f"{person} walked to the {pick(source, _PLACES)} {pick(source, _TIMES)}.",
        f"{person} {pick(source, _ACTIONS)} a {adjective} {thing}.",
        f"The {adjective} {thing} stood near the {pick(source, _PLACES)}.",
        f"{pick(source, _WEATHER)} {pick(source, _TIMES)}.",
        f"A {adjective} {pick(source, _ANIMALS)} followed {person} to the {pick(source, _PLACES)}.",
        f"{person} waited {pick(source, _TIMES)} with the {pick(source, _ANIMALS)}.",
        f"At the {pick(source, _PLACES)} {person} {pick(source, _ACTIONS)} the {thing}.",
    )


def generate(source: random.Random) -> Sample:
    """Draw one passage and one change; `reference` is the whole expected answer."""
    first, second = source.sample(NAMES, 2)
    sentences: list[str] = []
    count = source.randint(4, 7)
    while len(sentences) < count:
        line = _sentence(source, (first, second))
        if line not in sentences:
            sentences.append(line)
    passage = " ".join(sentences)
    kinds = ["remove", "first_last", "move", "reverse"]
    if first in passage:
        kinds += ["rename", "rename", "mentions"]
    kind = pick(source, kinds)
    position = source.randrange(min(count, len(_ORDINALS)))
    ordinal = _ORDINALS[position]
    if kind == "rename":
        new = pick(source, [name for name in NAMES if name not in (first, second)])
        instruction = one_of(
            source,
            f"Replace the name {first} by {new}.",
            f"Rewrite it with {new} instead of {first}.",
        )
        answer = [line.replace(first, new) for line in sentences]
    elif kind == "remove":
        instruction = one_of(
            source, f"Remove the {ordinal} sentence.", f"Leave out the {ordinal} sentence."
        )
        answer = sentences[:position] + sentences[position + 1 :]
    elif kind == "mentions":
        instruction = one_of(
            source,
            f"Keep only the sentences about {first}.",
            f"Summarise what we learn about {first}.",
        )
        answer = [line for line in sentences if first in line]
    elif kind == "first_last":
        instruction = one_of(
            source,
            "Summarise it by its first and last sentence.",
            "Keep the first and last sentence.",
        )
        answer = [sentences[0], sentences[-1]]
    elif kind == "move":
        instruction = one_of(
            source, f"Move the {ordinal} sentence to the end.", f"Put the {ordinal} sentence last."
        )
        answer = [*sentences[:position], *sentences[position + 1 :], sentences[position]]
    else:
        instruction = "Write the sentences in reverse order."
        answer = sentences[::-1]
    parts = (instruction, passage) if source.random() < 0.5 else (passage, instruction)
    text = " ".join(answer)
    return Sample(("\n".join(parts),), (text,), text)
