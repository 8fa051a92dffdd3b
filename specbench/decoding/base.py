"""The Decoder contract: open a session, decode a round, and the driver that does it to the end."""

from __future__ import annotations

from specbench.clock import Clock
from specbench.decoding.ledger import Generation
from specbench.decoding.request import Request
from specbench.decoding.session import Rounds, Session
from specbench.law import Law
from specbench.models.pair import ModelPair


class Decoder:
    """Continues prompts. Stateless between requests unless it declares carried state.

    A decoder says what its rounds are (`rounds`), one after the other in one generator: what it
    must remember from round to round is in that generator's variables and belongs to the session.

    Attributes:
        carries_state: Whether it remembers anything from one request to the next.
        needs: What the model pair must have, such as "draft".
    """

    carries_state: bool = False
    needs: frozenset[str] = frozenset()

    def prepare(self, models: ModelPair) -> None:
        """Look at the loaded models once, before anything is timed."""

    def inputs(self) -> dict[str, str]:
        """Return digests of what it reads beside the models, such as a datastore, by name.

        They are part of what identifies a measurement.
        """
        return {}

    def check(self, law: Law) -> None:
        """Refuse a target law that this decoder cannot follow, before anything is measured.

        Raises:
            SpecbenchError: If it cannot.
        """

    def reset(self) -> None:
        """Forget carried state."""

    def slots(self, models: ModelPair, request: Request) -> int:
        """Return the cache slots that it needs behind prompt and answer."""
        return 0

    def rounds(self, session: Session) -> Rounds:
        """Decode round after round; the first reads the prompt and yields the first token.

        It is not resumed once the session is done, so that a round may be followed by another
        without asking.
        """
        raise NotImplementedError

    def open(self, models: ModelPair, request: Request, clock: Clock) -> Session:
        """Begin a request: read its prompt and decode the first token.

        Raises:
            PromptTooLong: If prompt and answer exceed the models' context.
        """
        session = Session(models, request, clock, self.slots(models, request))
        session.rounds = self.rounds(session)
        self.step(session)
        return session

    def step(self, session: Session) -> list[int]:
        """Decode one round of a session that is not done; return the tokens that it kept."""
        try:
            return next(session.rounds)
        except BaseException:
            session.release()
            raise

    def generate(self, models: ModelPair, request: Request, clock: Clock) -> Generation:
        """Continue one prompt to its end."""
        session = self.open(models, request, clock)
        while not session.done:
            self.step(session)
        return session.finish()
