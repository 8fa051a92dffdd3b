"""A draft tree while it grows: who was fed, what it may see, what law came after it.

A topology adds nodes and asks for the laws after some of them; every call feeds the ground once,
however many nodes it holds, under a mask in which a node sees the committed text and its own
ancestors. Node ids, parents and tokens stay on the device; one transfer at the end turns them
into a `DraftTree`.

Shapes: n nodes of one call, V vocabulary. Node ids count from 0; the root is -1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.decoding.assembly import Assembly, Places, Raw
from specbench.decoding.ground import Ground
from specbench.decoding.lengths.base import LengthPolicy
from specbench.decoding.request import among
from specbench.decoding.session import Session
from specbench.decoding.tree import DraftTree, DrawKind, Draws, TreeMask
from specbench.rng import Purpose
from specbench.transfer import read, to_device

_WITH_LAW = (DrawKind.WITH_REPLACEMENT, DrawKind.WITHOUT_REPLACEMENT, DrawKind.HYBRID)


class Growth:
    """One tree that grows below the newest committed token.

    Args:
        ground: What it grows from.
        session: The request.
        length: When to stop.
        depth: Deepest level that may be drafted; at least 1.
        nodes: Most nodes that will be added.
        taken: Random numbers of this round that other growths have used.

    Attributes:
        depth: Deepest level that may be drafted.
        length: The length policy, for topologies that ask it.
        greedy: Whether the draft's law is a point mass. Laws are then softmax values at
            temperature 1, good for ranking alone, and a finished tree has kind POINT.
        taken: Random numbers of this round that are used up.
        root_logits: The logits after the newest committed token, [1, V], once it was fed.
    """

    def __init__(
        self,
        ground: Ground,
        session: Session,
        length: LengthPolicy,
        depth: int,
        nodes: int,
        taken: int = 0,
    ) -> None:
        self.depth = depth
        self.length = length
        self.greedy = ground.law.greedy
        self.device = ground.device
        self.root_logits: Tensor | None = None
        self._ground = ground
        self._session = session
        self.taken = taken
        self._path: list[Tensor] = []
        self._size = 0
        self._nodes = nodes
        self._fed = 0
        self._laws: list[Tensor] = []  # concatenated, row i is the law after slot i
        self._slots: list[int] = []

    # The root, and chains.

    def feed_root(self) -> Tensor:
        """Feed what the ground has not seen of the committed text; return the logits, [1, V]."""
        self._session.clock.launch()
        self._fed = 1
        self.root_logits = self._ground.plant(self._session.committed)
        return self.root_logits

    def feed_next(self, token: Tensor) -> Tensor:
        """Feed the next token of a chain, [1]; return the logits after it, [1, V]."""
        self._path.append(token)
        self._slots.append(self._fed)
        self._fed += 1
        return self._ground.feed(token, None, None)

    def law(self, logits: Tensor) -> Tensor:
        """Return the draft's law after the last token of a chain, [1, V]."""
        return self._warp(logits, self._chain_seen())

    def softmax(self, logits: Tensor, law: Tensor) -> Tensor:
        """Return the draft's softmax at temperature 1 there, [1, V]: `law` where it is that."""
        if self.greedy or self._ground.law.plain:
            return law
        return self._ground.law.softmax(logits, self._chain_seen())

    def watched(self, logits: Tensor, law: Tensor | None) -> Tensor | None:
        """Return the law that the length policy judges, [1, V]; None where it does not watch."""
        if law is None or not self.length.watches:
            return None
        return self.softmax(logits, law) if self.length.raw else law

    def unsure(self, judged: Tensor | None) -> bool:
        """Say whether a policy that drops the unsure token ends the chain before the next one."""
        if judged is None or self.length.keep_last:
            return False
        return self.length.ends(read(self.length.measure(judged, None)))

    def look(self, token: Tensor, judged: Tensor | None, *more: Tensor) -> tuple[bool, list[float]]:
        """Say whether a drawn token is a chain's last, and return further numbers, in one look.

        The policy may say so, and nothing is drafted behind a stop token. No look at a device is
        made for the sake of stop tokens alone: the chain goes on there, and what stands behind
        one is left out of the counts.

        Args:
            token: [1] the token.
            judged: What the policy judges, see `watched`.
            more: Further numbers to read, without dimensions.
        """
        stops, length = self._session.stops, self.length
        asked = judged is not None and length.keep_last
        if not (asked or more or (stops and self.device.type == "cpu")):
            return False, []
        numbers = [length.measure(judged, token), *more] if asked else list(more)
        drawn, *values = read(torch.stack([number.double() for number in (token[0], *numbers)]))
        ends = asked and length.ends(values.pop(0))
        return ends or int(drawn) in stops, values

    def token(self, logits: Tensor, law: Tensor | None, uniform: float) -> Tensor:
        """Draw the next token of a chain, or take the argmax of a greedy draft, [1]."""
        if self.greedy or law is None:
            return self._ground.law.argmax(logits, self._chain_seen())
        return self._session.request.choices.draw(law, uniform)

    def uniforms(self) -> list[float]:
        """Return one uniform number for each position of a chain."""
        position, streams = len(self._session.committed), self._session.request.streams
        if not self.taken:
            return streams.uniforms(position, self.depth, Purpose.DRAFT)
        # Another growth of this round has used the positions' numbers.
        numbers = streams.numbers(position, self.depth, Purpose.DRAFT, self.taken)
        self.taken += self.depth
        return numbers

    # Trees.

    def expand_root(self) -> Tensor:
        """Return the draft's law after the newest committed token, [1, V]."""
        law = self._warp(self._plant(), self._ground.history.now())
        self._laws.append(law)
        return law

    def rank_root(self) -> Tensor:
        """Return the draft's softmax at temperature 1 there, [1, V]: to choose by, not to draw."""
        return self._ground.law.softmax(self._plant(), self._ground.history.now())

    def _plant(self) -> Tensor:
        logits = self.feed_root()
        size = self._nodes + 1
        self._parents = torch.full((size,), -1, dtype=torch.int64, device=self.device)
        self._tokens = torch.zeros_like(self._parents)
        self._depths = torch.zeros_like(self._parents)
        self._slot = torch.full_like(self._parents, -1)
        self._slot[0] = 0
        self._slot_depths = torch.zeros_like(self._parents)
        self._visible = torch.zeros(size, size, dtype=torch.bool, device=self.device)
        self._visible[0, 0] = True
        seen = self._ground.history.now()
        self._seen = None if seen is None else seen.repeat(size, 1)
        return logits

    def add(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """Add nodes to the tree without feeding them.

        Args:
            parents: [n] ids of their parents, -1 for the root; fed before.
            tokens: [n] token ids.

        Returns:
            The ids of the new nodes, [n].
        """
        count = tokens.shape[0]
        assert self._size + count <= self._nodes, "the topology understates its nodes"
        new = slice(self._size + 1, self._size + 1 + count)
        self._parents[new] = parents
        self._tokens[new] = tokens
        self._depths[new] = self._depths[parents + 1] + 1
        if self._seen is not None:
            self._seen[new] = self._seen[parents + 1].scatter(1, tokens[:, None], True)
        self._size += count
        return torch.arange(new.start - 1, new.stop - 1, device=self.device)

    def expand(self, ids: Tensor) -> Tensor:
        """Feed nodes in one forward and return the draft's law after each.

        Args:
            ids: [n] ids of nodes that were added and whose parents were fed.

        Returns:
            Laws [n, V].
        """
        laws = self._warp(self._feed(ids), self._seen_by(ids))
        self._laws.append(laws)
        return laws

    def rank(self, ids: Tensor) -> Tensor:
        """Feed nodes, and return the draft's softmax at temperature 1 after each, [n, V]."""
        return self._ground.law.softmax(self._feed(ids), self._seen_by(ids))

    def _seen_by(self, ids: Tensor) -> Tensor | None:
        return None if self._seen is None else self._seen[ids + 1]

    def _feed(self, ids: Tensor) -> Tensor:
        count, fed = ids.shape[0], self._fed
        width = fed + count
        entries = ids + 1
        parents = self._slot[self._parents[entries] + 1]
        rows = self._visible[parents, :width]
        rows[:, fed:] = torch.eye(count, dtype=torch.bool, device=self.device)
        self._visible[fed:width, :width] = rows
        self._slot_depths[fed:width] = self._depths[entries]
        mask = TreeMask(self._slot_depths[:width], rows)
        logits = self._ground.feed(self._tokens[entries], parents, mask)
        order = torch.arange(fed, width, device=self.device)
        self._slot[entries] = order
        self._fed = width
        return logits

    def ended(self, ids: Tensor) -> Tensor | None:
        """Say which nodes, [n], are stop tokens, behind which nothing is emitted; None: none."""
        if not self._session.stops:
            return None
        return (ids >= 0) & among(self._tokens[ids + 1], self._session.stops)

    def depths(self, ids: Tensor) -> Tensor:
        """Return the depth of nodes, [n]; children of the root have depth 1."""
        return self._depths[ids + 1]

    def numbers(self, count: int) -> Tensor:
        """Return [count] fresh uniform numbers in float64."""
        numbers = self._session.request.streams.numbers(
            len(self._session.committed), count, Purpose.DRAFT, self.taken
        )
        self.taken += count
        return to_device(numbers, self.device, torch.float64)

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        """Return uniform noise in float64 for as many numbers as a vocabulary has."""
        seed = self._session.request.streams.noise_seed(
            len(self._session.committed), Purpose.DRAFT, self.taken
        )
        self.taken += 1
        generator = torch.Generator(self.device).manual_seed(seed)
        return torch.rand(shape, generator=generator, dtype=torch.float64, device=self.device)

    def pick(self, laws: Tensor, count: int) -> Tensor:
        """Return `count` distinct children of each node in draw order, [n, count].

        Drawn without replacement, or the most probable ones where the draft is greedy. Where a
        law has fewer tokens than `count`, the surplus is dropped by `finish`.
        """
        count = min(count, laws.shape[-1])
        if self.greedy:
            return laws.topk(count, dim=-1).indices
        uniforms = self.numbers(laws.shape[0] * count).view(laws.shape[0], count)
        return self._session.request.choices.draw_distinct(laws, uniforms)

    def draw(self, laws: Tensor) -> Tensor:
        """Return one child of each node drawn from its law, [n]; the argmax where greedy."""
        if self.greedy:
            return laws.argmax(-1)
        return self._session.request.choices.draw(laws, self.numbers(laws.shape[0]))

    def finish(self, kind: DrawKind, keep: Tensor | None = None) -> DraftTree | None:
        """Turn the nodes into a tree: one transfer to the host.

        Nodes of one prefix become one; with replacement each draw stays recorded. Nodes that a
        sampling draft cannot have drawn (probability zero) are dropped with their descendants,
        and so is what hangs below a stop token.

        Args:
            kind: How children were drawn from the laws of `expand_root` and `expand`.
            keep: [m] ids of the nodes to keep, closed under parents; None keeps all.

        Returns:
            The tree in order of depth, or None if it is empty.
        """
        if self.greedy and kind is not DrawKind.NONE:
            kind = DrawKind.POINT
        if self._size == 0:
            return None
        laws = torch.cat(self._laws) if kind in _WITH_LAW else None
        nodes = slice(1, self._size + 1)
        parents, tokens = self._parents[nodes], self._tokens[nodes]
        alive = torch.ones_like(tokens)
        if laws is not None and kind is not DrawKind.HYBRID:
            alive = (laws[self._slot[parents + 1], tokens] > 0).long()
        ended = self.ended(parents)
        if ended is not None:
            alive = alive * ~ended
        if keep is not None:
            alive = alive * torch.zeros_like(alive).index_fill_(0, keep, 1)
        columns = [parents, tokens, alive, self._depths[nodes], self._slot[nodes]]
        raw = Raw(*read(torch.stack(columns)))
        tree = Assembly(raw, repeats=kind is DrawKind.WITH_REPLACEMENT)
        if not tree.tokens:
            return None
        self._slots = tree.slots
        offers = None
        law = None
        records: tuple[int, ...] = ()
        if laws is not None:
            records, rows, offers = tree.records()
            law = laws[to_device(rows, self.device)][None]
        elif kind is DrawKind.POINT:
            records, _, offers = tree.records()
        draft = to_device([tree.tokens], self.device)
        return DraftTree(draft, tuple(tree.parents), Draws(kind, records, law, offers))

    def finish_places(self, kind: DrawKind, places: Places) -> DraftTree:
        """Turn nodes that the host knows, all but their tokens, into a tree: no transfer.

        For trees without equal siblings, of which no node is to be dropped.

        Args:
            kind: How children were found in the laws of `expand_root` and `expand`; POINT where
                the draft is greedy.
            places: Where the nodes stand, in the order in which they were added.
        """
        assert len(places.parents) == self._size
        self._slots = list(places.slots)
        tokens = self._tokens[1 : self._size + 1][None]
        law = None
        if self.greedy:
            kind = DrawKind.POINT
        else:
            law = torch.cat(self._laws)[to_device(places.rows, self.device)][None]
        return DraftTree(tokens, places.parents, Draws(kind, places.records, law, places.offers))

    def commit(self, path: tuple[int, ...]) -> None:
        """Keep, of what was fed, the root and the accepted nodes of the finished tree."""
        if not self._fed:
            return
        kept = [0]
        for node in path:
            slot = self._slots[node] if node < len(self._slots) else -1
            if slot < 0:
                break
            kept.append(slot)
        self._ground.keep(kept)

    def _warp(self, logits: Tensor, seen: Tensor | None) -> Tensor:
        law = self._ground.law
        return law.softmax(logits, seen) if law.greedy else law.probabilities(logits, seen)

    def _chain_seen(self) -> Tensor | None:
        seen = self._ground.history.now()
        if seen is not None and self._path:
            seen = seen.scatter(1, torch.stack(self._path, dim=1), True)
        return seen
