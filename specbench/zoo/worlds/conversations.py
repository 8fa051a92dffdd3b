"""Two-turn conversations in the shape of MT-Bench: the second turn refers to the first answer.

The first answer recommends, plans or explains something; it draws its details and its wording at
random. The second turn asks for a shorter answer, another proposal, a reason or a list, and its
answer repeats details of the first.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from specbench.zoo.worlds.sample import NAMES, Sample, one_of, pick, sentence_case, word_list

_LIKES = word_list(
    "music rain dogs cats chess tea coffee history trains boats birds maps painting dancing "
    "swimming football cooking gardens mountains rivers snow poems robots stars castles bread"
)
_MOMENTS = word_list(
    "this weekend,tomorrow,in the evening,next month,in summer,in winter,on Sunday,after work,"
    "for a birthday,on a rainy day,on a cold day,before breakfast,during the holidays",
    separator=",",
)
_BUDGETS = word_list(
    "a small budget,a large budget,one free hour,two free days,very little time", separator=","
)


class _Topic(NamedTuple):
    """One thing to recommend: its options, their qualities, and what goes with them."""

    noun: str
    options: tuple[str, ...]
    qualities: tuple[str, ...]
    extras: tuple[str, ...]


_TOPICS = (
    _Topic(
        "book",
        ("The Silent River", "A House of Glass", "Seven Winters", "The Last Lighthouse"),
        ("short and funny", "calm and wise", "full of surprises", "easy to read"),
        ("read it slowly", "take notes", "share it with a friend", "start with the last chapter"),
    ),
    _Topic(
        "meal",
        ("tomato soup", "rice with beans", "a potato pie", "noodles with ginger"),
        ("cheap and warm", "quick to make", "light and healthy", "rich and filling"),
        ("add fresh herbs", "serve it with bread", "use a large pot", "cook it on low heat"),
    ),
    _Topic(
        "trip",
        ("the old harbour", "a mountain hut", "the city museum", "the lake in the forest"),
        ("quiet and green", "easy to reach", "full of stories", "good for long walks"),
        ("bring warm clothes", "leave early", "take a camera", "ask for a map"),
    ),
    _Topic(
        "game",
        ("a card game for two", "a treasure hunt", "a word puzzle", "a round of chess"),
        ("simple to learn", "exciting to the end", "good for a group", "friendly and fast"),
        ("keep the score on paper", "play three rounds", "change partners", "set a time limit"),
    ),
    _Topic(
        "gift",
        ("a small plant", "a warm scarf", "a wooden box", "a set of brushes"),
        ("useful every day", "personal and kind", "simple but pretty", "made to last"),
        ("wrap it in blue paper", "write a short card", "choose a soft colour", "buy it early"),
    ),
    _Topic(
        "hobby",
        ("pottery", "bird watching", "baking", "learning the flute"),
        ("calm for the mind", "good in company", "cheap to begin", "fun at any age"),
        ("practise twice a week", "join a small club", "begin with easy steps", "be patient"),
    ),
)


class _Advice(NamedTuple):
    """What the first answer proposed, for the second answer to refer to."""

    topic: _Topic
    option: str
    quality: str
    extra: str
    like: str
    moment: str


def _first_prompt(source: random.Random, name: str, advice: _Advice, other: str) -> str:
    noun, like, moment = advice.topic.noun, advice.like, advice.moment
    budget = pick(source, _BUDGETS)
    return one_of(
        source,
        f"My friend {name} likes {like} and {other}. Can you recommend a {noun} {moment}? "
        f"We have {budget}.",
        f"I am {name}, I like {like} and {other}, and I have {budget}. Which {noun} do you "
        f"suggest {moment}?",
        f"Help me to plan a {noun} for {name} {moment}, with {budget}. {name} enjoys {like} "
        f"and {other}.",
        f"{name} loves {like} but not {other}. What {noun} fits {moment} with {budget}?",
    )


def _first_answer(source: random.Random, name: str, advice: _Advice) -> str:
    topic, option, quality, extra, like, moment = advice
    opening = one_of(
        source,
        f"I would suggest {option}.",
        f"A good {topic.noun} for {name} is {option}.",
        f"How about {option}?",
        f"{sentence_case(moment)}, {option} is a fine choice.",
        f"My first idea is {option}.",
    )
    reason = one_of(
        source,
        f"It is {quality}, and it suits people who like {like}.",
        f"Because {name} likes {like}, something {quality} should work well.",
        f"It is {quality}, so it goes well with {like}.",
    )
    advice_line = one_of(
        source,
        f"I would also {extra}.",
        f"To make it better, {extra}.",
        f"One more tip: {extra}.",
        f"Do not forget to {extra}.",
    )
    closing = one_of(
        source,
        "",
        f" I hope {name} enjoys it!",
        " Have a good time!",
        f" It should be ready {moment}.",
        " Tell me if you want another idea.",
    )
    return f"{opening} {reason} {advice_line}{closing}"


def _another(source: random.Random, name: str, advice: _Advice) -> str:
    topic = advice.topic
    option = pick(source, [item for item in topic.options if item != advice.option])
    quality = pick(source, topic.qualities)
    return one_of(
        source,
        f"Instead of {advice.option}, you could try {option}. It is {quality}, and {name} "
        f"can still enjoy {advice.like}.",
        f"Another {topic.noun} is {option}. Compared with {advice.option} it is {quality}.",
        f"Then I would take {option}, which is {quality} and fits {advice.moment}.",
    )


def _shorter(source: random.Random, name: str, advice: _Advice) -> str:
    return one_of(
        source,
        f"Try {advice.option}: it is {advice.quality}.",
        f"In short: {advice.option}, and {advice.extra}.",
        f"{sentence_case(advice.option)} for {name}, because it is {advice.quality}.",
    )


def _reason(source: random.Random, name: str, advice: _Advice) -> str:
    return one_of(
        source,
        f"I chose {advice.option} because it is {advice.quality}. {name} likes "
        f"{advice.like}, and that fits {advice.moment}.",
        f"There are two reasons. First, {advice.option} is {advice.quality}. Second, it "
        f"goes well with {advice.like}.",
        f"Because {advice.option} is {advice.quality}, and {name} enjoys {advice.like}.",
    )


def _steps(source: random.Random, name: str, advice: _Advice) -> str:
    begin = one_of(source, "Ask", "Talk to", "Call", "Invite")
    end = one_of(source, "Enjoy the day.", "Have fun.", f"Think of {advice.like}.", "Take a rest.")
    return (
        f"1. {begin} {name}.\n2. Choose {advice.option}.\n"
        f"3. {sentence_case(advice.extra)}.\n4. {end}"
    )


_FOLLOW_UPS = (
    (("Can you give me another idea?", "Give me one more, please.", "What else?"), _another),
    (("Make it shorter.", "Can you say that in one sentence?"), _shorter),
    (("Why?", "Why did you choose that?", "Explain your choice."), _reason),
    (("Write it as a list of steps.", "Turn that into four steps."), _steps),
)


def generate(source: random.Random) -> Sample:
    """Draw one conversation of two turns; it has no single right answer."""
    name = pick(source, NAMES)
    topic = pick(source, _TOPICS)
    like, other = source.sample(_LIKES, 2)
    advice = _Advice(
        topic,
        pick(source, topic.options),
        pick(source, topic.qualities),
        pick(source, topic.extras),
        like,
        pick(source, _MOMENTS),
    )
    questions, answer = pick(source, _FOLLOW_UPS)
    turns = (_first_prompt(source, name, advice, other), pick(source, questions))
    return Sample(turns, (_first_answer(source, name, advice), answer(source, name, advice)), None)
