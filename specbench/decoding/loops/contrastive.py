"""Contrastive search: a probable token whose representation is unlike those before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from specbench.clock import Segment
from specbench.decoding.base import Decoder
from specbench.decoding.loops.branches import parallel_chains
from specbench.decoding.loops.scoring import ranked, refuse_sampling, widened
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.request import Request
from specbench.decoding.session import Rounds, Session
from specbench.law import Law
from specbench.models.base import Taps
from specbench.models.pair import ModelPair


class Contrastive(Decoder):
    """Contrastive search (Su et al. 2022, arXiv:2202.06417, equation 5).

    Of the `candidates` most probable tokens v, the one of largest
    (1 - alpha) p(v) - alpha max_j cos(h_v, h_j) is taken, where h is the final hidden state that
    the LM head reads and j runs over all tokens before, the prompt included
    (github.com/yxuansu/SimCTG, simctg/utlisgpt.py). p is the model's law at temperature 1 (after
    the repetition penalty, where the run sets one).

    One forward scores all candidates as siblings behind the cached text; the chosen one's keys,
    values and logits stay, so that a token costs one forward of `candidates` tokens. The
    prompt's forward alone cannot decide the first token: the first round has two forwards.

    Args:
        alpha: Weight of the degeneration penalty; 0 is greedy decoding.
        candidates: Tokens that are compared in every step (k in the paper).

    Raises:
        ConfigError: If alpha is not from 0 to 1, or candidates is less than one.
    """

    needs = frozenset({"hidden_states", "tree_mask"})

    def __init__(self, alpha: float, candidates: int = 5) -> None:
        check_number("alpha", alpha, 0, 1)
        check_whole("candidates", candidates, 1)
        self._alpha = alpha
        self._candidates = candidates

    def check(self, law: Law) -> None:
        """Refuse a sampled law.

        Raises:
            ConfigError: If the temperature is above zero.
        """
        refuse_sampling(law, "Contrastive search")

    def slots(self, models: ModelPair, request: Request) -> int:
        """Return the cache slots of the candidates."""
        return self._candidates

    def rounds(self, session: Session) -> Rounds:
        """Emit the best of some candidates a round."""
        target = session.target
        cache, vocabulary, device = target.cache, target.model.vocab_size, target.model.device
        count = min(self._candidates, vocabulary)
        (mask,) = parallel_chains(count, 1, device)
        taps = Taps(every=True)
        logits = session.feed(session.prompt, last=1, taps=taps)[:, -1]
        states = F.normalize(widened(taps.states[0][0]), dim=-1)
        context = states.new_empty(session.capacity, states.shape[-1])
        context[: len(states)] = states
        while True:
            base = cache.lengths[0]
            logits = target.law.penalise(widened(logits), target.history.now())
            ids = ranked(logits, count)
            law = logits.softmax(-1).gather(-1, ids)[0]
            session.clock.lap(Segment.SAMPLING)
            scored = session.feed(ids, mask, taps=taps)
            states = F.normalize(widened(taps.states[0][0]), dim=-1)
            likeness = (states @ context[:base].T).amax(-1)
            choice = ((1 - self._alpha) * law - self._alpha * likeness).argmax(0, keepdim=True)
            place, token = session.read(torch.cat((choice, ids[0].gather(0, choice))))
            cache.keep([base], [[place]])
            context[base] = states[place]
            logits = scored[:, place]
            session.commit([token])
            yield session.close()
