"""Plain decoding: one target forward for each token. The denominator of every speedup.

It shares cache, kernels, law and random streams with every method; a slow baseline would be a
lie about all of them. On CUDA it therefore runs one step ahead: while the host waits for a token
to look whether the text ends there, the device computes the next one, which needs the token only
where it already is. Where the text does end there, one forward was for nothing; it is counted
in the last round, and its time in the generation's. On a CPU nothing is gained by that.
"""

from __future__ import annotations

from torch import Tensor

from specbench.decoding.base import Decoder
from specbench.decoding.session import Rounds, Session
from specbench.transfer import Pending


class Autoregressive(Decoder):
    """Draw one token after another from the target's law."""

    def rounds(self, session: Session) -> Rounds:
        """Emit one token a round."""
        device = session.target.model.device
        return _one_ahead(session) if device.type == "cuda" else _one_by_one(session)


def _one_by_one(session: Session) -> Rounds:
    """Read every token before the next step."""
    token = session.prompt[0]
    while True:
        token = _drawn(session, token[None], len(session.committed))
        session.committed += token.tolist()
        yield session.close()


def _one_ahead(session: Session) -> Rounds:
    """Enqueue every step before the token that it feeds is read."""
    start = len(session.committed)
    token = _drawn(session, session.prompt, start)
    waiting = Pending(token)
    session.seal()
    for position in range(start + 1, start + session.request.max_new_tokens):
        token = _drawn(session, token[None], position)
        following = Pending(token)
        session.seal()
        session.committed += waiting.values()
        yield session.close()
        waiting = following
    session.committed += waiting.values()
    yield session.close()


def _drawn(session: Session, fed: Tensor, position: int) -> Tensor:
    """Feed [1, T] tokens and draw the one at a position, [1]; it is not committed yet."""
    token = session.target.next_token(session.feed(fed, last=1)[:, -1], position)
    session.target.history.commit(token[:, None])
    return token
