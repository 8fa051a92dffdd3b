"""What a session owns: its tokens and ledger, and caches that go from one to the next."""

from __future__ import annotations

import pytest
import torch

from specbench.clock import CpuClock
from specbench.decoding.ledger import StopReason
from specbench.decoding.request import Request, StopStrings, StopTokens
from specbench.decoding.session import Session
from specbench.law import Law
from specbench.rng import Streams
from tests.unit.decoding.parts import Autoregressive, count_of, pld, table_pair, token_sd


def request(count=9, stop=()):
    return Request((0, 1), count, Law(), Streams(0, "session"), StopTokens(frozenset(stop)))


def session_of(count=9, stop=(), models=None):
    session = Session(models or table_pair(vocab=9), request(count, stop), CpuClock())
    session.rounds = iter(())  # type: ignore[assignment]
    session.release = lambda: None
    return session


def test_the_first_round_emits_one_token_and_holds_all_work():
    session = session_of()
    for _ in range(5):
        session.feed(session.prompt)
    session.commit([4, 5, 6])
    assert session.close() == [4, 5, 6]
    session.commit([7, 8])
    assert session.close(proposed=3, accepted=1, nodes=3) == [7, 8]
    session.commit([2, 2, 2, 2])
    session.close()
    assert session.cut.reason is StopReason.LENGTH
    counts = [round_.count for round_ in session.finish().rounds]
    assert [count.emitted for count in counts] == [1, 2, 2, 4]
    assert [count.target.forwards for count in counts] == [5, 0, 0, 0]
    assert counts[2] == count_of(3, 1, 2, 3, 0, 0)


def test_a_first_round_that_ends_the_text_has_no_second():
    session = session_of(stop={4})
    session.commit([4, 5])
    assert session.close() == [4] and session.done
    assert len(session.finish().rounds) == 1


def test_what_stands_behind_the_end_was_neither_proposed_nor_accepted():
    session = session_of(count=5, stop={7})
    session.commit([3])
    session.close()
    session.commit([5, 7, 6, 6])
    assert session.close(proposed=6, accepted=3, nodes=6) == [5, 7]
    assert session.committed == [0, 1, 3, 5, 7]
    assert session.finish().rounds[-1].count == count_of(2, 2, 2, 6, 0, 0)


def test_a_stop_string_does_not_begin_in_the_prompt():
    stop = StopStrings(frozenset(), ("1 4",), lambda tokens: " ".join(map(str, tokens)))
    asked = Request((0, 1), 9, Law(), Streams(0), stop)
    session = Session(table_pair(vocab=9), asked, CpuClock())
    session.commit([4])
    session.close()
    assert not session.done
    session.commit([1, 4, 4])
    assert session.close() == [1, 4] and session.cut.reason is StopReason.STOP_STRING


def test_work_that_nobody_needed_is_counted_in_the_last_round():
    session = session_of(count=1)
    session.feed(session.prompt)
    session.seal()
    session.feed(torch.tensor([[3]]))
    session.seal()
    session.commit([3])
    session.close()
    assert session.finish().rounds[0].count == count_of(0, 0, 1, 0, 2, 3)


# Caches.


def test_requests_one_after_the_other_share_the_caches():
    models, decoder = table_pair(), token_sd()
    decoder.generate(models, request(), CpuClock())
    caches = {role: list(idle) for role, idle in models._caches.items()}
    assert {role: len(idle) for role, idle in caches.items()} == {"target": 1, "draft 0": 1}
    decoder.generate(models, request(), CpuClock())
    assert all(models._caches[role] == idle for role, idle in caches.items())


def test_open_sessions_have_caches_of_their_own():
    models, decoder = table_pair(), token_sd()
    sessions = [decoder.open(models, request(), CpuClock()) for _ in range(3)]
    assert len({id(session.target.cache) for session in sessions}) == 3
    for session in sessions:
        while not session.done:
            decoder.step(session)
        session.finish()
    assert len(models._caches["target"]) == len(models._caches["draft 0"]) == 3


@pytest.mark.parametrize("first", [True, False])
def test_a_failed_round_gives_the_caches_back(first, monkeypatch):
    models, decoder = table_pair(), token_sd()
    forward, calls = type(models.target).forward, []

    def failing(self, *args, **options):
        calls.append(self)
        if first or len(calls) > 5:
            raise RuntimeError("out of memory")
        return forward(self, *args, **options)

    monkeypatch.setattr(type(models.target), "forward", failing)
    with pytest.raises(RuntimeError):
        decoder.generate(models, request(30), CpuClock())
    assert len(models._caches["target"]) == 1


def test_rounds_hand_out_what_they_kept():
    models, decoder = table_pair(), pld()
    session = decoder.open(models, request(20), CpuClock())
    emitted = session.answer
    assert len(emitted) == 1
    while not session.done:
        emitted += decoder.step(session)
    assert tuple(emitted) == session.finish().tokens
    whole = Autoregressive().generate(models, request(20), CpuClock())
    assert tuple(emitted) == whole.tokens
