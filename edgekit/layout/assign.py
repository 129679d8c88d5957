"""Which order of axes each value is held in: one optimization over the whole graph.

The problem is a set of *groups* (an operator, or a part of one) joined by *values*. A group has ports, and a *mode* is one
choice of permutation for each of its ports in which it can work without moving data. Fixed groups have one mode (a Conv works
on NHWC, a model input is what the user asked for); free groups (elementwise, Concat, Reduce, Reshape …) can follow their
neighbours: `relate(port, perm)` gives the mode in which that port has that permutation.

A value that is produced in one order and needed in another costs one transpose, whoever and how many need it. The sum of those
costs is minimized:

1. Fixed groups cut the graph into *regions* of free groups.
2. In each region, every permutation that a neighbour demands is propagated as far as it goes. That gives a few *proposals*,
   partial assignments that agree with themselves. A region that all its neighbours see alike has one, and is done.
3. Otherwise start from the cheapest proposal and improve by expansion moves: given the present assignment and a proposal, each
   group either keeps its mode or takes the proposal's. The best such choice is a minimum cut, and where two proposals cover
   the region it is the optimum (docs/layout.md has the argument). Repeat until no proposal improves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

from edgekit.layout.maxflow import UNBOUNDED, FlowNetwork
from edgekit.layout.permutation import Dim, Perm, moves_data
from edgekit.layout.window import best_modes

Mode = tuple[Perm, ...]
Relate = Callable[[int, Perm], Mode | None]

TRANSPOSE_OVERHEAD = 64  # bytes-equivalent of having one more operator, so that many small transposes do not come for free
SCATTERED_PASSES = 3  # over the bytes, where they do not move in runs
RESHAPE_COST = 16  # the orders differ in axes of size 1 only
MAX_PROPOSALS = 12  # per region; real networks need two or three
MAX_WINDOWS = 64  # per region


@dataclass(frozen=True)
class Port:
    """One operand of a group: `value` indexes the problem's values."""

    value: int
    is_output: bool


@dataclass
class Group:
    """Ports that choose their permutations together.

    Args:
        ports: What it takes and gives.
        mode: The present choice; at first one that is always possible.
        relate: From a port's permutation to the whole mode, or None where that port cannot have it. A fixed group has no
            `relate`.
        choices: Modes of its own that it can work in as well, and that no neighbour may ask for by itself.
    """

    ports: tuple[Port, ...]
    mode: Mode
    relate: Relate | None = None
    choices: tuple[Mode, ...] = ()


@dataclass(frozen=True)
class ValueSize:
    """What it costs to transpose a value: its shape (a dynamic dimension counts as 1) and bytes per element."""

    shape: tuple[Dim, ...]
    itemsize: int

    @property
    def elements(self) -> int:
        return prod(d for d in self.shape if isinstance(d, int))

    def cost(self, have: Perm, want: Perm) -> int:
        """Of holding it as `have` where `want` is needed, in bytes moved: read and written, and written again where the innermost
        axis changes, for then neighbours in memory part."""
        if have == want:
            return 0
        if not moves_data(have, want, self.shape):
            return RESHAPE_COST
        passes = 2 if self._innermost(have) == self._innermost(want) else SCATTERED_PASSES
        return passes * self.itemsize * self.elements + TRANSPOSE_OVERHEAD

    def _innermost(self, order: Perm) -> int:
        return next(axis for axis in reversed(order) if self.shape[axis] != 1)


@dataclass
class Problem:
    """The graph as the optimization sees it. `solve` changes the groups' modes in place."""

    values: list[ValueSize]
    groups: list[Group]
    users: list[list[tuple[int, int]]] = field(init=False)  # per value, (group, port) pairs; the producer's first

    def __post_init__(self) -> None:
        self.users = [[] for _ in self.values]
        for g, group in enumerate(self.groups):
            for p, port in enumerate(group.ports):
                if port.is_output:
                    self.users[port.value].insert(0, (g, p))
                else:
                    self.users[port.value].append((g, p))

    def cost(self, values: Sequence[int] | None = None) -> int:
        """Bytes that transposes move under the present modes."""
        return sum(self._net_cost(v) for v in (range(len(self.values)) if values is None else values))

    def solve(self) -> None:
        """Choose the modes of least cost."""
        for region in self._regions():
            self._solve_region(region)

    def demands(self, seeds: Sequence[tuple[int, Perm]]) -> dict[int, Perm]:
        """Per value, the permutation in which the nearest seed's demand reaches it through free groups."""
        reached = dict(seeds)
        self._propagate(list(reached.items()), reached, {}, None)
        return reached

    def _net_cost(self, value: int) -> int:
        users = self.users[value]
        have = self._perm(*users[0])
        return sum(self.values[value].cost(have, want) for want in {self._perm(*user) for user in users[1:]} - {have})

    def _perm(self, group: int, port: int) -> Perm:
        return self.groups[group].mode[port]

    def _regions(self) -> list[list[int]]:
        """The free groups, by connection through values."""
        seen: set[int] = set()
        crossed: set[int] = set()
        regions = []
        for start, group in enumerate(self.groups):
            if group.relate is None or start in seen:
                continue
            seen.add(start)
            region = [start]
            for g in region:  # grows while it is walked
                for port in self.groups[g].ports:
                    if port.value in crossed:
                        continue
                    crossed.add(port.value)
                    for other, _ in self.users[port.value]:
                        if other not in seen and self.groups[other].relate is not None:
                            seen.add(other)
                            region.append(other)
            regions.append(region)
        return regions

    def _solve_region(self, region: list[int]) -> None:
        nets = sorted({port.value for g in region for port in self.groups[g].ports})
        inside = set(region)
        defaults = {g: self.groups[g].mode for g in region}
        proposals = self._proposals(inside, nets)
        for proposal in proposals:
            self._move(defaults | proposal)
        alternatives = [*proposals, self._spread(self._own_choices(region), inside), defaults]
        windows = MAX_WINDOWS
        while self.cost(nets):
            moved = [self._expand(proposal) for proposal in alternatives]
            if any(moved):
                continue
            torn = sorted((v for v in nets if self._net_cost(v)), key=self._net_cost, reverse=True)
            if self._expand_from(torn, inside):
                continue
            # Nothing moves as a whole: try everything around each value that is still transposed.
            tried = torn[:windows]
            windows -= len(tried)
            moved = [self._move(best_modes(self, v, inside)) for v in tried if self._net_cost(v)]
            if not any(moved):
                return

    def _expand_from(self, torn: list[int], inside: set[int]) -> bool:
        """Let either side's order spread from all values that are transposed. Returns whether that pays anywhere."""
        have = {v: self._perm(*self.users[v][0]) for v in torn}
        want = {v: next(p for u in self.users[v][1:] if (p := self._perm(*u)) != have[v]) for v in torn}
        moved = [self._expand(self._spread(list(seeds.items()), inside)) for seeds in (have, want)]
        return any(moved)

    def _own_choices(self, region: list[int]) -> list[tuple[int, Perm]]:
        """The orders of values that some group offers on its own, where they differ from what it has."""
        found: dict[int, Perm] = {}
        for g in region:
            for mode in self.groups[g].choices:
                for port, perm, present in zip(self.groups[g].ports, mode, self.groups[g].mode, strict=True):
                    if perm != present:
                        found.setdefault(port.value, perm)
        return list(found.items())

    def _spread(self, seeds: list[tuple[int, Perm]], inside: set[int]) -> dict[int, Mode]:
        """The modes that groups take when values are held as in `seeds`; the nearest seed decides."""
        modes: dict[int, Mode] = {}
        self._propagate(seeds, dict(seeds), modes, inside)
        return modes

    def _expand(self, proposal: dict[int, Mode]) -> bool:
        """Take the part of a proposal that pays most. Returns whether any does."""
        proposal = {g: mode for g, mode in proposal.items() if mode != self.groups[g].mode}
        return bool(proposal) and self._move(self._expansion(proposal))

    def _move(self, modes: dict[int, Mode]) -> bool:
        """Take these modes if that lowers the cost."""
        before = {g: self.groups[g].mode for g, mode in modes.items() if mode != self.groups[g].mode}
        touched = sorted({port.value for g in before for port in self.groups[g].ports})
        cost = self.cost(touched)
        for g in before:
            self.groups[g].mode = modes[g]
        if self.cost(touched) < cost:
            return True
        for g, mode in before.items():
            self.groups[g].mode = mode
        return False

    def _proposals(self, inside: set[int], nets: list[int]) -> list[dict[int, Mode]]:
        """One assignment per demand at the region's border (or of a group's own choice) that no earlier one agrees with.

        The heaviest values speak first: their demands claim the groups that two demands could both have.
        """
        seeds: dict[tuple[int, Perm], int] = {}
        for v in nets:
            for g, p in self.users[v]:
                if g not in inside or self._perm(g, p) != tuple(range(len(self.values[v].shape))):
                    seeds[v, self._perm(g, p)] = self.values[v].elements * self.values[v].itemsize
        proposals: list[dict[int, Mode]] = []
        claimed: list[dict[int, Perm]] = []
        for value, perm in sorted(seeds, key=lambda seed: -seeds[seed]):
            if len(proposals) == MAX_PROPOSALS:
                break
            if any(known.get(value) == perm for known in claimed):
                continue
            reached, modes = {value: perm}, dict[int, Mode]()
            self._propagate([(value, perm)], reached, modes, inside)
            # Demands elsewhere in the region that this one does not meet may join it: they only enlarge what it covers.
            for other, wish in seeds:
                if other not in reached:
                    reached[other] = wish
                    self._propagate([(other, wish)], reached, modes, inside)
            if modes:
                proposals.append(modes)
                claimed.append(reached)
        return proposals

    def _propagate(
        self, frontier: list[tuple[int, Perm]], reached: dict[int, Perm], modes: dict[int, Mode], inside: set[int] | None
    ) -> None:
        for value, perm in frontier:  # grows while it is walked
            for g, p in self.users[value]:
                relate = self.groups[g].relate
                if relate is None or g in modes or (inside is not None and g not in inside):
                    continue
                mode = relate(p, perm)
                if mode is None:
                    continue
                modes[g] = mode
                for port, its in zip(self.groups[g].ports, mode, strict=True):
                    if port.value not in reached:
                        reached[port.value] = its
                        frontier.append((port.value, its))

    def _expansion(self, proposal: dict[int, Mode]) -> dict[int, Mode]:
        """The groups that should take the proposal's mode: the sink side of a minimum cut."""
        network = FlowNetwork()
        node = {g: network.add_node() for g in proposal}
        for value in sorted({port.value for g in proposal for port in self.groups[g].ports}):
            options = []  # per port: its node (None where it cannot move) and its permutation when kept and when moved
            for g, p in self.users[value]:
                kept = self._perm(g, p)
                options.append((node.get(g), kept, proposal[g][p] if g in node else kept))
            _add_net(network, self.values[value], options)
        keep = network.source_side()
        return {g: proposal[g] for g, n in node.items() if not keep[n]}


def _add_net(network: FlowNetwork, size: ValueSize, options: list[tuple[int | None, Perm, Perm]]) -> None:
    """What a value costs, as edges of the network: source side keeps, sink side moves.

    Where all movable ports agree on the permutation `a` that they keep and the `b` that they would take, and the others demand
    one of the two, the cost is exact: one transpose however many consumers need it (an auxiliary node stands for "some consumer
    is on the other side"). Otherwise each consumer counts for itself.
    """
    producer, consumers = options[0], options[1:]
    movable = [o for o in options if o[0] is not None]
    if not movable or not consumers:
        return
    a, b = movable[0][1], movable[0][2]
    if all(o[1:] == (a, b) for o in movable) and all(o[1] in (a, b) for o in options):
        if a == b:
            return

        def end(option: tuple[int | None, Perm, Perm]) -> int:
            if option[0] is not None:
                return option[0]
            return network.SOURCE if option[1] == a else network.SINK

        forward, backward = network.add_node(), network.add_node()
        network.add_edge(end(producer), forward, size.cost(a, b))
        network.add_edge(backward, end(producer), size.cost(b, a))
        for consumer in consumers:
            network.add_edge(forward, end(consumer), UNBOUNDED)
            network.add_edge(end(consumer), backward, UNBOUNDED)
        return
    for consumer in set(consumers):
        if producer[0] is not None or consumer[0] is not None:
            _add_pair(network, size, producer, consumer)


def _add_pair(
    network: FlowNetwork, size: ValueSize, left: tuple[int | None, Perm, Perm], right: tuple[int | None, Perm, Perm]
) -> None:
    """The cost of one producer and one consumer, each kept (0) or moved (1)."""
    kept, left_kept = size.cost(left[1], right[1]), size.cost(left[1], right[2])
    right_kept, moved = size.cost(left[2], right[1]), size.cost(left[2], right[2])
    if left[0] is None or right[0] is None:
        variable = left[0] if right[0] is None else right[0]
        assert variable is not None
        network.add_edge(variable, network.SINK, kept)
        network.add_edge(network.SOURCE, variable, right_kept if right[0] is None else left_kept)
        return
    # θ = kept + (right_kept - kept) x + (moved - right_kept) y + (left_kept + right_kept - kept - moved) (1 - x) y
    network.add_edge(left[0], right[0], left_kept + right_kept - kept - moved)
    for variable, weight in ((left[0], right_kept - kept), (right[0], moved - right_kept)):
        network.add_edge(network.SOURCE, variable, weight)
        network.add_edge(variable, network.SINK, -weight)
