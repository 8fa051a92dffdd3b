"""Retrieve what followed similar hidden states: DReSD.

Gritta, Xue, Lampouras 2025, "DReSD: Dense Retrieval for Speculative Decoding"
(arXiv:2502.15572). The state from which the target just chose its newest token is the query; of
its nearest stored states, those whose next token was that very token give their continuations.

Read in the authors' code (`generate.py`, `index.py`, `embed_data.py`, `evaluate.py` arguments of
their README): the last, normed hidden state; 64 components; 50 neighbours; the 10 nearest that
agree, 10 tokens of each, of which the newest token is the first: 9 are drafted. The authors verify
the continuations as separate rows; here they share one tree on equal prefixes, which changes the
cost and not what can be accepted.
"""

from __future__ import annotations

from torch import Tensor

from specbench.datastore.dense import DenseDatastore
from specbench.datastore.format import END_OF_DOCUMENT
from specbench.datastore.location import Location, check_model, folder_of
from specbench.datastore.prefix_tree import frequent_prefixes, sorted_rows
from specbench.decoding.drafters.base import Drafter, Drafting, Outcome, Plan, Prefill
from specbench.decoding.drafters.rest import retrieved_tree
from specbench.decoding.ranges import check_whole
from specbench.decoding.session import Session
from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError
from specbench.models.pair import ModelPair
from specbench.transfer import Pending


class DenseRetrieval(Drafter):
    """Propose the continuations of the nearest stored states that agree on the newest token.

    Args:
        datastore: Where the datastore lies: a folder, or what chooses one.
        neighbours: Stored states that are looked at.
        drafts: Most continuations, nearest first.
        continuation: Tokens of each.
        exact: Whether neighbours are found by comparing with every stored state.

    Raises:
        ConfigError: If a number is out of its range.
    """

    needs = frozenset({"tree_mask", "hidden_states"})

    def __init__(
        self,
        datastore: Location | str,
        neighbours: int = 50,
        drafts: int = 10,
        continuation: int = 9,
        exact: bool = False,
    ) -> None:
        check_whole("neighbours", neighbours, 1)
        check_whole("drafts", drafts, 1, 256)
        check_whole("continuation", continuation, 1, 256)
        self._datastore = datastore
        self._neighbours = neighbours
        self._drafts = drafts
        self._continuation = continuation
        self._exact = exact
        self._store: DenseDatastore | None = None
        self.nodes = drafts * continuation

    def taps(self, models: ModelPair) -> tuple[int, ...]:
        """Return the final states."""
        return (-1,)

    def prepare(self, models: ModelPair) -> None:
        """Map the datastore.

        Raises:
            ConfigError: If there is none, or it belongs to another model or tokenizer.
        """
        folder = folder_of(self._datastore, models)
        self._store = None
        if folder is not None:
            store = DenseDatastore(folder, exact=self._exact)
            check_model(store.metadata, folder, models)
            self._store = store

    def inputs(self) -> dict[str, str]:
        """Return the digest of the datastore."""
        return {"dense datastore": self._store.metadata.digest()} if self._store else {}

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Take the state that chose the first token."""
        query = prefill.hidden[0][0, -1]
        if self._store is not None and query.shape[-1] != self._store.width:
            raise ConfigError(
                f"The datastore holds states of width {self._store.width}",
                f"'{session.models.name}' has states of width {query.shape[-1]}",
                "Build one: specbench datastore build FILES... -o DIR --model MODEL --kind dense.",
            )
        return _Following(query, self)

    def after(self, query: Tensor, session: Session, plan: Plan) -> DraftTree | None:
        """Return the tree of the continuations, or None where no neighbour agrees.

        Args:
            query: [C] the state that chose the newest token.
            session: The request.
            plan: How long they may be.
        """
        length = min(self._continuation, plan.length.limit(), plan.depth)
        if length < 1 or self._store is None:
            return None
        state = Pending(query.float()).arrived().numpy()
        rows = self._store.after(state, session.committed[-1], self._neighbours, length)
        nearest = sorted_rows(rows[: self._drafts])
        prefixes = frequent_prefixes(nearest, END_OF_DOCUMENT, stops=session.stops)
        return retrieved_tree(prefixes, session.models.target.device)


class _Following(Drafting):
    """One request's drafts: the state that chose its newest token, and what follows such states."""

    def __init__(self, query: Tensor, part: DenseRetrieval) -> None:
        self._query = query
        self._part = part

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return the tree of the continuations, or None where no neighbour agrees."""
        return self._part.after(self._query, session, plan)

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Take the state at the last accepted node, which chose the newest token."""
        self._query = outcome.kept[0][0, -1]
