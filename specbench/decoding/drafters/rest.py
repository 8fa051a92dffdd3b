"""Retrieve what followed the last tokens elsewhere: REST.

He, Zhong, Cai, Lee, He 2024, "REST: Retrieval-Based Speculative Decoding" (arXiv:2311.08252).
The longest suffix of the text, of 16 down to 2 tokens, is looked up in a suffix array; the
prefixes of the continuations found there are counted, and the most frequent ones form the tree.

Read in the released code (github.com/FasterDecoding/REST: `rest/model/utils.py`,
`DraftRetriever/src/lib.rs`): at most 5,000 continuations of 10 tokens and 64 prefixes. What
differs here, and why:

- The released trie takes the first 5,000 continuations in sorted order, those of the smallest
  token ids; here they are spread evenly over the sorted order.
- Its cut to 64 counts shared tokens once for every prefix that holds them and therefore keeps
  fewer nodes than 64, the shortest ones first; `trim: released` does the same.
- Without a hit it proposes token 100; here the round is a plain step.
- Its datastore joins documents; here no continuation leaves its document, and none holds a stop
  token, behind which nothing is emitted.
- It verifies nucleus sampling path by path, which is biased; `SampleMatch` draws once per node.
"""

from __future__ import annotations

from typing import Literal

import torch

from specbench.datastore.format import END_OF_DOCUMENT
from specbench.datastore.location import Location, check_model, folder_of
from specbench.datastore.prefix_tree import PrefixTree, frequent_prefixes, trim_to_path_tokens
from specbench.datastore.suffix import SuffixDatastore
from specbench.decoding.drafters.base import Drafter, Plan
from specbench.decoding.ranges import check_whole
from specbench.decoding.session import Session
from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError
from specbench.models.pair import ModelPair
from specbench.transfer import to_device

Trim = Literal["nodes", "released"]


class SuffixRetrieval(Drafter):
    """Propose the most frequent continuations of the longest suffix that the datastore holds.

    Args:
        datastore: Where the datastore lies: a folder, or what chooses one.
        longest: Most tokens of a suffix that is looked up.
        shortest: Fewest.
        matches: Most occurrences whose continuations are counted.
        continuation: Tokens of a continuation.
        draft_nodes: Most nodes of a tree.
        trim: "nodes" keeps the `draft_nodes` most frequent prefixes, as the paper says;
            "released" cuts further, as the released code does.

    Raises:
        ConfigError: If a number is out of its range.
    """

    needs = frozenset({"tree_mask"})

    def __init__(
        self,
        datastore: Location | str,
        longest: int = 16,
        shortest: int = 2,
        matches: int = 5000,
        continuation: int = 10,
        draft_nodes: int = 64,
        trim: Trim = "nodes",
    ) -> None:
        check_whole("shortest", shortest, 1)
        check_whole("longest", longest, shortest)
        check_whole("matches", matches, 1)
        check_whole("continuation", continuation, 1, 1024)
        check_whole("draft_nodes", draft_nodes, 1, 4096)
        if trim not in ("nodes", "released"):
            raise ConfigError(
                f"'trim' is '{trim}'", "it is one of: nodes, released", "Choose one of them."
            )
        self._datastore = datastore
        self._sizes = (shortest, longest)
        self._matches = matches
        self._continuation = continuation
        self._trim = trim
        self._store: SuffixDatastore | None = None
        self.nodes = draft_nodes

    def prepare(self, models: ModelPair) -> None:
        """Map the datastore.

        Raises:
            ConfigError: If there is none, or it belongs to another tokenizer.
        """
        folder = folder_of(self._datastore, models)
        self._store = None
        if folder is not None:
            store = SuffixDatastore(folder)
            check_model(store.metadata, folder, models)
            self._store = store

    def inputs(self) -> dict[str, str]:
        """Return the digest of the datastore."""
        return {"suffix datastore": self._store.metadata.digest()} if self._store else {}

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return the tree of the most frequent continuations, or None where nothing matches."""
        length = min(self._continuation, plan.length.limit(), plan.depth)
        if length < 1 or self._store is None:
            return None
        match = self._store.longest_match(session.committed[-self._sizes[1] :], *self._sizes)
        if match is None:
            return None
        rows = self._store.continuations(match, self._matches, length)
        prefixes = frequent_prefixes(rows, END_OF_DOCUMENT, self.nodes, session.stops)
        if self._trim == "released":
            prefixes = trim_to_path_tokens(prefixes, self.nodes)
        return retrieved_tree(prefixes, session.models.target.device)


def retrieved_tree(prefixes: PrefixTree, device: torch.device) -> DraftTree | None:
    """Return a tree of prefixes as a draft without a law; None where it is empty."""
    if not len(prefixes.tokens):
        return None
    tokens = to_device([prefixes.tokens.tolist()], device)
    return DraftTree(tokens, tuple(prefixes.parents.tolist()))
