"""On a device, a round of every method looks at it once; whoever looks more often is named here.

The device is played on a CPU (`tests/unit/decoding/transfers.py`): the code takes the path that it
takes on CUDA, must find the tokens that it finds on a CPU, and never waits for an upload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from specbench.audit.heads import with_head
from specbench.clock import CpuClock
from specbench.decoding.ledger import Count, Generation
from specbench.decoding.lengths import oracle_cost
from specbench.decoding.request import Request, StopTokens
from specbench.finite import watching
from specbench.hosting import load_method
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, drift_table, markov_table
from specbench.rng import Streams
from specbench.schema import catalog
from specbench.schema.build import instantiate
from tests.unit.decoding.jacobi.toy import PROMPT, image_pair
from tests.unit.decoding.transfers import CountingClock, Traffic, on_device, watch

VOCABULARY = 24
NEW_TOKENS = 24
SEED = 2
LAWS = {
    "greedy": Law(temperature=0.0, repetition_penalty=1.2),
    "sampled": Law(temperature=0.9, top_p=0.95, repetition_penalty=1.1),
}
IMAGE_LAWS = {"greedy": Law(temperature=0.0), "sampled": Law(temperature=1.0, top_k=3)}


class Exempt(NamedTuple):
    """Why a method looks at the device more than once in a round, and how often at most.

    Attributes:
        most: From what the round did to the looks that it may have had.
        reason: Why.
        laws: Where it does; elsewhere one look is enough.
    """

    most: Callable[[Count], int]
    reason: str
    laws: frozenset[str] = frozenset(LAWS)


SAMPLED = frozenset({"sampled"})
DRAWN = Exempt(
    lambda count: 2,
    "draws decide which nodes the tree has: impossible and equal ones go before the target sees it",
    SAMPLED,
)
RANKED = Exempt(lambda count: 2, "the draft's laws decide the shape of the tree")
WATCHING = Exempt(
    lambda count: count.draft.forwards + 1, "the length policy looks at every law of the draft"
)
EXEMPT = {
    "adadec": Exempt(lambda count: 2, "an entropy decides whether rollouts follow"),
    "beam": Exempt(
        lambda count: count.target.forwards, "every forward is a choice; a round holds several"
    ),
    "bild": WATCHING,
    "conf_sd": WATCHING,
    "del": Exempt(
        lambda count: count.draft.forwards + 2,
        "the draft's confidence ends it, and what every block would have said chooses the exit",
    ),
    "draft_verify": WATCHING,
    "hf_assisted": WATCHING,
    "kangaroo": WATCHING,
    "dynamic_tree": RANKED,
    "dyspec": Exempt(
        lambda count: count.draft.forwards + 2, "the values of drawn tokens decide what is fed next"
    ),
    "eagle1": DRAWN,
    "eagle2": RANKED,
    "eagle3": RANKED,
    "lantern": RANKED,
    "lantern_pp": DRAWN,
    "mcsd": DRAWN,
    "mcsd_wr": DRAWN,
    "rasd": Exempt(lambda count: 2, "equal prefixes of two drafters' trees are merged on the host"),
    "rasd_eagle": Exempt(
        lambda count: 2, "equal prefixes of two drafters' trees are merged on the host"
    ),
    "rsd_c": DRAWN,
    "rsd_s": RANKED,
    "sequoia": DRAWN,
    "specexec": Exempt(
        lambda count: count.draft.forwards + 2, "the best candidates decide what is fed next"
    ),
    "specinfer": DRAWN,
    "spectr": DRAWN,
    "static_tree": DRAWN,
    "svip": WATCHING,
    "swift": Exempt(
        lambda count: count.draft.forwards + 2,
        "the draft's confidence decides the number of children, and now and then a set of skipped "
        "sublayers is scored",
    ),
}
"""Whoever makes one of these look less often takes its entry out: a test asks for that."""


class Run(NamedTuple):
    """One generation on the played device, with its rounds and what they would have waited for."""

    expected: tuple[int, ...]
    generation: Generation
    traffic: list[Traffic]


def toy_pair(method: str) -> ModelPair:
    table = markov_table(order=1, vocab_size=VOCABULARY, seed=SEED, sharpness=2.0)
    noise = markov_table(order=1, vocab_size=VOCABULARY, seed=SEED + 100, sharpness=2.0)
    draft = drift_table(table, noise, 0.3)
    models = ModelPair("toy", TableModel(table, VOCABULARY), TableModel(draft, VOCABULARY))
    return with_head(models, load_method(method).get("heads") or ())


def requested(method: str, law: str) -> tuple[ModelPair, Request]:
    streams = Streams(SEED, f"toy/{SEED}")
    if catalog.load("method", method).get("modality", "text") == "image":
        models = image_pair(seed=SEED)
        assert models.image is not None
        length = models.image.grid.length
        stop = StopTokens(models.stop_ids)
        return models, Request(PROMPT, length, IMAGE_LAWS[law], streams, stop)
    return toy_pair(method), Request((0, 1, 2, 0, 1, 2, 0), NEW_TOKENS, LAWS[law], streams)


def run(method: str, law: str) -> Run:
    models, request = requested(method, law)
    decoder = instantiate(load_method(method)["decoder"])
    decoder.prepare(models)
    expected = decoder.generate(models, request, CpuClock()).tokens
    decoder = instantiate(load_method(method)["decoder"])
    decoder.prepare(models)
    with watch() as watched, watching() as noted:
        clock = CountingClock(watched)
        generation = decoder.generate(on_device(models), request, clock)
    noted.check()
    return Run(expected, generation, clock.traffic)


@pytest.fixture(autouse=True)
def _one_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step cost the same on both devices: adaptive_sd chooses its lengths by the clock."""
    monkeypatch.setattr(oracle_cost, "measured_cost_ratio", lambda *models: 0.2)


@pytest.mark.parametrize("method", catalog.names("method"))
def test_one_look_a_round_and_no_upload_that_waits(method: str) -> None:
    exempt = EXEMPT.get(method)
    looked_twice = set()
    for law in LAWS:
        done = run(method, law)
        assert done.generation.tokens == done.expected, law
        rounds = zip(done.generation.rounds, done.traffic, strict=True)
        for round_, traffic in list(rounds)[1:]:
            most = exempt.most(round_.count) if exempt and law in exempt.laws else 1
            assert traffic.reads.total() <= most, (law, traffic.reads)
            if traffic.reads.total() > 1:
                looked_twice.add(law)
        assert not [traffic.uploads for traffic in done.traffic if traffic.uploads]
    assert looked_twice == (set(exempt.laws) if exempt else set()), "the table is out of date"
