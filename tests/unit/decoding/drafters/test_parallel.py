"""PARD: exact whatever the draft says, and the draft says what one forward with masks says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters import parallel
from specbench.decoding.drafters.block import Block
from specbench.decoding.drafters.parallel import ParallelDrafter
from specbench.decoding.lengths.confidence import ConfidenceStop
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.topologies.static_tree import StaticTree
from specbench.decoding.verifiers import token_sd
from specbench.decoding.verifiers.rrs import RecursiveRejection
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.law import Law
from specbench.models.decoder import LeanDecoder
from specbench.models.pair import ModelPair
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import generate, table_pair
from tests.unit.models import tiny_checkpoints

PROMPT, COUNT = (0, 1, 0, 0, 1), 4
LAWS = {
    "plain": Law(),
    "top_k": Law(temperature=1.3, top_k=2),
    "penalty": Law(temperature=0.8, top_p=0.9, repetition_penalty=1.7),
}
MASK = 5


def pard(draft_length=2, topology=None, length=None, verifier=None):
    return DraftVerify(
        ParallelDrafter(),
        topology or Chain(),
        length or Constant(draft_length),
        verifier or TokenSD(),
    )


DECODERS = {
    "chain": pard(),
    "judged length": pard(length=ConfidenceStop(threshold=0.4, max_length=3)),
    "tree": pard(
        topology=StaticTree(paths=[[0], [1], [0, 0]]),
        verifier=TreeWalk(RecursiveRejection(replacement=False)),
    ),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_the_law_is_the_targets(decoder, law):
    models = table_pair(vocab=2)
    got = output_law(decoder, models, law, PROMPT, COUNT)
    assert distance(got, true_law(models, law, PROMPT, COUNT)) < 1e-12


def test_a_stop_token_inside_a_draft_keeps_the_law():
    models = table_pair(vocab=2)
    got = output_law(pard(), models, Law(), PROMPT, COUNT, stop={1})
    assert distance(got, true_law(models, Law(), PROMPT, COUNT, stop={1})) < 1e-12


def bonus_of_the_last_draft(target, draft, accepted):
    full = accepted == draft.shape[1]
    rows = torch.arange(target.shape[0])
    return torch.where(full[:, None], target[rows, accepted - 1], RESIDUAL(target, draft, accepted))


RESIDUAL = token_sd.residual


def test_a_bonus_from_another_position_is_caught(monkeypatch):
    models = table_pair(vocab=2)
    monkeypatch.setattr(token_sd, "residual", bonus_of_the_last_draft)
    got = output_law(pard(), models, Law(), PROMPT, COUNT)
    assert distance(got, true_law(models, Law(), PROMPT, COUNT)) > 1e-3


def test_laws_of_other_depths_are_caught(monkeypatch):
    """A verifier that is told the law of the token before."""
    models, grow = table_pair(vocab=2), Block.grow

    def shifted(self, session, plan):
        tree = grow(self, session, plan)
        law = tree.draws.law
        return replace(tree, draws=replace(tree.draws, law=law.roll(1, 1)))

    monkeypatch.setattr(Block, "grow", shifted)
    got = output_law(pard(), models, Law(), PROMPT, COUNT)
    assert distance(got, true_law(models, Law(), PROMPT, COUNT)) > 1e-3


def checkpoint_pair(folder):
    """A random target, and a draft that looks at positions and at all that is cached."""

    def load(seed):
        path = tiny_checkpoints.write(folder, "llama", seed)
        module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
        return LeanDecoder.of(module, "tiny", torch.device("cpu"), torch.float64)

    models = ModelPair("tiny", load(0), load(1))
    models.draft.mask_token = MASK
    return models


def said(draft, text):
    """What the draft says behind a text that it reads at once, [T, V]."""
    cache = draft.new_cache(1, len(text))
    return draft.forward(torch.tensor([text]), cache)[0].softmax(-1)


def recorded(models, draft_length, count=24, seed=0):
    """Each round's text before it, and the laws that its tokens were drawn from."""
    decoder = pard(draft_length)
    rounds = []
    decoder.probe = lambda scored, verdict: rounds.append((scored.tree, verdict))
    done = generate(decoder, models, Law(temperature=1.0), (3, 7, 4), count, seed)
    text = [3, 7, 4, done.tokens[0]]
    found = []
    for tree, verdict in rounds:
        if tree.size:
            found.append((list(text), tree.draws.law[0]))
        text += verdict.tokens
    return found, done


def off(law, expected):
    return (law - expected[-law.shape[0] :]).abs().max().item()


def test_a_round_says_what_one_forward_over_the_text_and_its_masks_says(tmp_path):
    models = checkpoint_pair(tmp_path)
    found, done = recorded(models, 4)
    assert {law.shape[0] for _, law in found} == {1, 2, 3, 4}, "the last rounds have less room"
    assert any(round_.count.accepted > 0 for round_ in done.rounds)
    for text, law in found:
        masks = [MASK] * (law.shape[0] - 1)
        assert off(law, said(models.draft, text + masks)) < 1e-9
        if masks:
            assert off(law, said(models.draft, [*text, *masks, MASK])) > 1e-3
    kept = found[1][0][:4] + [MASK] * 3 + found[1][0][4:]
    assert off(found[1][1], said(models.draft, kept + [MASK] * 3)) > 1e-3


def test_a_mask_that_stays_in_the_cache_is_caught(tmp_path, monkeypatch):
    models = checkpoint_pair(tmp_path)

    class Keeping(parallel._ParallelDrafting):
        def propose(self, session, plan):
            cache = self._role.cache
            truncate, first = cache.truncate, len(session.committed) == 4
            cache.truncate = lambda lengths: truncate([lengths[0] + first])
            try:
                return super().propose(session, plan)
            finally:
                del cache.truncate

    monkeypatch.setattr(parallel, "_ParallelDrafting", Keeping)
    (_, (text, law), *_), _ = recorded(models, 4)
    assert off(law, said(models.draft, text + [MASK] * (law.shape[0] - 1))) > 1e-3


def test_a_round_feeds_the_draft_once(tmp_path):
    _, done = recorded(checkpoint_pair(tmp_path), 4)
    news = 1
    for round_ in done.rounds[1:6]:
        work = round_.count.draft
        assert (work.forwards, work.tokens) == (1, news + 3)
        news = round_.count.emitted
