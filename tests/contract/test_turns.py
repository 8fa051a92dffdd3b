"""Sessions that take turns on one model get the very tokens and rounds that they have alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from specbench.audit.pictures import guided_picture, picture_prompt
from specbench.clock import CpuClock
from specbench.decoding.base import Decoder
from specbench.decoding.ledger import Generation
from specbench.decoding.request import Request, StopTokens
from specbench.decoding.session import Session
from specbench.hosting import load_method
from specbench.law import Guidance, Law
from specbench.models.pair import ModelPair
from specbench.rng import Streams
from specbench.schema import catalog
from specbench.schema.build import instantiate
from tests.contract.test_methods import STOP, text_methods, toy_pair
from tests.unit.decoding.jacobi.toy import PROMPT, image_pair

LAWS = {
    "greedy": Law(temperature=0.0, repetition_penalty=1.3),
    "sampled": Law(temperature=0.9, top_k=4),
}


def picture_methods() -> list[str]:
    names = catalog.names("method")
    return [name for name in names if catalog.load("method", name).get("modality") != "text"]


def text_requests(law: Law) -> list[Request]:
    def ask(place: int, prompt: tuple[int, ...], *stops: int) -> Request:
        stop = StopTokens(frozenset(stops))
        return Request(prompt, 22 - 3 * place, law, Streams(place, f"turn/{place}"), stop)

    return [ask(0, (0, 1, 2, 0, 1, 2, 0)), ask(1, (3, 0), STOP), ask(2, (1, 1, 2, 3, 1))]


def picture_requests(models: ModelPair, law: Law) -> list[Request]:
    assert models.image is not None
    length, stop = models.image.grid.length, StopTokens(models.stop_ids)
    return [Request(PROMPT, length, law, Streams(s, f"picture/{s}"), stop) for s in range(3)]


def decoders_of(method: str, models: ModelPair, count: int) -> list[Decoder]:
    """Return a decoder for each session: one for all, unless it carries state between requests."""
    decoders: list[Decoder] = [instantiate(load_method(method)["decoder"]) for _ in range(count)]
    for decoder in decoders:
        if models.image is not None:
            decoder.prepare(models)
    return decoders if decoders[0].carries_state else decoders[:1] * count


def in_turns(
    decoders: Sequence[Decoder], models: ModelPair, requests: Sequence[Request]
) -> list[Generation]:
    pairs = list(zip(decoders, requests, strict=True))
    sessions = [decoder.open(models, request, CpuClock()) for decoder, request in pairs]
    while not all(session.done for session in sessions):
        for decoder, session in zip(decoders, sessions, strict=True):
            if not session.done:
                decoder.step(session)
    return [session.finish() for session in sessions]


def ledger(generation: Generation) -> tuple[object, ...]:
    return generation.tokens, generation.stop_reason, [r.count for r in generation.rounds]


def compare(method: str, models: ModelPair, requests: Sequence[Request]) -> None:
    decoders = decoders_of(method, models, 3)  # what they measured of the models stays the same
    alone = [
        ledger(decoder.generate(models, request, CpuClock()))
        for decoder, request in zip(decoders, requests, strict=True)
    ]
    for decoder in decoders:
        decoder.reset()
    together = in_turns(decoders, models, requests)
    assert [ledger(generation) for generation in together] == alone


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", text_methods())
def test_texts_in_turns_are_the_texts_alone(method: str, law: str) -> None:
    compare(method, toy_pair(1, method), text_requests(LAWS[law]))


@pytest.mark.parametrize("method", picture_methods())
def test_pictures_in_turns_are_the_pictures_alone(method: str) -> None:
    models = image_pair(seed=0)
    compare(method, models, picture_requests(models, Law(temperature=1.0, top_k=3)))


@pytest.mark.parametrize("method", ["ar", "token_sd", "sjd"])
def test_pictures_of_two_laws_take_turns_on_one_loaded_model(method: str) -> None:
    """The guidance is the request's, whatever law the pair was asked for before."""
    scales = (Guidance(3.0), None, Guidance(0.0))
    loaded = guided_picture(2, 3, 5)
    assert loaded.image is not None
    models, length = loaded.under(Law(guidance=scales[0])), loaded.image.grid.length
    requests = [
        Request(picture_prompt(5), length, Law(guidance=scale), Streams(0)) for scale in scales
    ]
    compare(method, models, requests)
    decoder = decoders_of(method, models, 1)[0]
    drawn = {decoder.generate(models, each, CpuClock()).tokens for each in requests}
    assert len(drawn) == len(scales), "the scale does not matter here"


@pytest.mark.parametrize("method", ["token_sd", "jacobi"])
def test_a_shared_cache_would_be_noticed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    borrow: Callable[..., object] = Session._borrow
    shared: dict[str, object] = {}

    def share(self: Session, key: str, model: object) -> object:
        return shared.setdefault(key, borrow(self, key, model))

    monkeypatch.setattr(Session, "_borrow", share)
    models, requests = toy_pair(1), text_requests(LAWS["sampled"])
    with pytest.raises((AssertionError, IndexError)):
        in_turns(decoders_of(method, models, 3), models, requests)
