"""How far relaxed decoding strays on a small exact case, as docs/relaxed.md tells it."""

from __future__ import annotations

import re
from functools import cache

import pytest

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.loops.zipar import ZipAR
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.topologies.eagle2_dynamic import Eagle2Dynamic
from specbench.decoding.topologies.static_tree import StaticTree
from specbench.decoding.verifiers.cool_sd import CoolSD
from specbench.decoding.verifiers.lantern import Lantern
from specbench.law import Guidance, Law
from tests.unit.decoding.enumeration import output_law, true_law
from tests.unit.decoding.pictures import toy_picture

LAW = Law(guidance=Guidance(2.0))
PROMPT = (1, 0, 1)
DEPTH = 2


def composed(topology, verifier):
    return DraftVerify(ModelDrafter(), topology, Constant(DEPTH), verifier)


DECODERS = {
    "cool_sd": lambda delta: composed(Chain(), CoolSD(DEPTH, delta, 0.7)),
    "cool_sd nu=0": lambda delta: composed(Chain(), CoolSD(DEPTH, delta)),
    "lantern": lambda delta: composed(Eagle2Dynamic(2, 3, DEPTH), Lantern(1, delta)),
    "lantern_pp": lambda factor: composed(
        StaticTree(paths=[[0], [0, 0]]), Lantern(1, factor=factor)
    ),
    "zipar": lambda window: ZipAR(int(window)),
}


@cache
def case():
    """Return the models and the target's law of whole pictures."""
    models = toy_picture(2, 2, 2, row_end=True, order=5)
    models = models.under(LAW)
    return models, true_law(models, LAW, PROMPT, models.image.grid.length)


def strayed(decoder):
    """Return the total variation of whole pictures from the target's law."""
    models, exact = case()
    decoder.prepare(models)
    got = output_law(decoder, models, LAW, PROMPT, models.image.grid.length)
    assert sum(got.values()) == pytest.approx(1, abs=1e-9)
    return sum(abs(got.get(tokens, 0.0) - weight) for tokens, weight in exact.items()) / 2


def told(repo_root):
    """Yield (method, knob, total variation) of the table on the page."""
    page = (repo_root / "docs" / "relaxed.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| `([a-z_]+)`(?:, `(nu=0)`)? \| `[a-z]+=([0-9.]+)` \| ([0-9.]+) \|$", re.M)
    for method, extra, knob, distance in row.findall(page):
        yield f"{method} {extra}".strip(), float(knob), float(distance)


@pytest.mark.slow
def test_the_page_tells_what_is_measured(repo_root):
    rows = list(told(repo_root))
    assert {name for name, _, _ in rows} == set(DECODERS)
    for name, knob, distance in rows:
        assert strayed(DECODERS[name](knob)) == pytest.approx(distance, abs=6e-5), (name, knob)
