"""Translation into a toy language: regular words, verb-final order, suffixes for number and tense.

The lexicon is fixed. A noun takes `-i` in the plural, an adjective follows its noun, the verb
closes the sentence and takes `-ta` in the past and `-ro` in the future.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from specbench.zoo.worlds.sample import Sample, one_of, pick, sentence_case

_NOUNS = {
    "dog": "kanu",
    "cat": "mira",
    "bird": "felo",
    "child": "topa",
    "farmer": "garu",
    "teacher": "selda",
    "king": "rombu",
    "sailor": "navo",
    "house": "domu",
    "tree": "arba",
    "river": "flumo",
    "boat": "bako",
    "book": "libu",
    "apple": "poma",
    "stone": "petru",
    "letter": "skiva",
    "garden": "horta",
    "horse": "kavo",
    "flower": "bloma",
    "mountain": "monta",
}
_PLURALS = {"child": "children"}
_ADJECTIVES = {
    "small": "leti",
    "big": "granu",
    "old": "vesho",
    "young": "yuna",
    "red": "ruso",
    "green": "verda",
    "happy": "gali",
    "quiet": "sile",
    "strong": "forta",
    "white": "blani",
}
_VERBS = {
    "see": ("sees", "saw", "vidu"),
    "find": ("finds", "found", "trova"),
    "carry": ("carries", "carried", "porta"),
    "love": ("loves", "loved", "amo"),
    "draw": ("draws", "drew", "desi"),
    "watch": ("watches", "watched", "garda"),
    "reach": ("reaches", "reached", "atu"),
    "buy": ("buys", "bought", "kupe"),
    "leave": ("leaves", "left", "partu"),
    "remember": ("remembers", "remembered", "memo"),
}
_TIMES = {"today": "hodi", "yesterday": "heri", "tomorrow": "moru", "often": "ofta"}


class _Phrase(NamedTuple):
    """The same words in both languages."""

    english: str
    toy: str


def _noun_phrase(source: random.Random, plural: bool) -> _Phrase:
    noun = pick(source, tuple(_NOUNS))
    toy = _NOUNS[noun] + ("i" if plural else "")
    english = _PLURALS.get(noun, noun + "s") if plural else noun
    if source.random() < 0.5:
        adjective = pick(source, tuple(_ADJECTIVES))
        english = f"{adjective} {english}"
        toy = f"{toy} {_ADJECTIVES[adjective]}"
    return _Phrase(f"the {english}", toy)


def _sentence(source: random.Random) -> _Phrase:
    plural = source.random() < 0.4
    subject = _noun_phrase(source, plural)
    thing = _noun_phrase(source, source.random() < 0.4)
    verb = pick(source, tuple(_VERBS))
    singular, past, toy_verb = _VERBS[verb]
    tense = one_of(source, "present", "past", "future")
    if tense == "present":
        english_verb, suffix = (verb if plural else singular), ""
        times = ("today", "often")
    elif tense == "past":
        english_verb, suffix = past, "ta"
        times = ("yesterday", "often")
    else:
        english_verb, suffix = f"will {verb}", "ro"
        times = ("tomorrow", "today")
    english = f"{subject.english} {english_verb} {thing.english}"
    toy = f"{subject.toy} {thing.toy} {toy_verb}{suffix}"
    if source.random() < 0.4:
        time = pick(source, times)
        english, toy = f"{english} {time}", f"{_TIMES[time]} {toy}"
    return _Phrase(sentence_case(english) + ".", sentence_case(toy) + ".")


def generate(source: random.Random) -> Sample:
    """Draw two to four sentences; `reference` is the whole translation."""
    phrases = [_sentence(source) for _ in range(source.randint(2, 4))]
    english = " ".join(phrase.english for phrase in phrases)
    toy = " ".join(phrase.toy for phrase in phrases)
    instruction = one_of(source, "Translate into Velar:", "Say this in Velar:", "In Velar, please:")
    return Sample((f"{instruction}\n{english}",), (toy,), toy)
