"""The best modes of a few neighbouring groups while all others stay: a search that tries everything and gives up on what is
already too dear.

Expansion moves (edgekit.layout.assign) are exact for two competing layouts. Where three or more meet, or where the layouts of
a value contradict each other around a cycle (x + xᵀ), they can stop short of the optimum, and always locally: around a value
that is still transposed. That is where a window is opened. A region that fits into one is solved exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from edgekit.layout.permutation import Dim, Perm

if TYPE_CHECKING:
    from edgekit.layout.assign import Mode, Problem, ValueSize

WINDOW = 9  # groups
MAX_ORDERS = 12  # modes per group
BUDGET = 1500  # partial assignments looked at


def best_modes(problem: Problem, value: int, inside: set[int]) -> dict[int, Mode]:
    """Modes for the free groups nearest to `value` that cost least together, of those that any order in sight leads to."""
    window = _nearest(problem, value, inside)
    modes = _modes_in_sight(problem, window)
    place = {g: i for i, g in enumerate(window)}
    nets = sorted({port.value for g in window for port in problem.groups[g].ports})
    choice = _cheapest(tuple(tuple(modes[g]) for g in window), tuple(_net(problem, net, place) for net in nets))
    return {g: modes[g][i] for g, i in zip(window, choice, strict=True)}


class _Net(NamedTuple):
    """A value that a window's groups produce or consume. Groups count by their place in the window, so that what repeated layers
    ask is the same question.

    Args:
        size: What it costs to transpose.
        have: The order in which a producer outside of the window gives it.
        producer: Else the group that does, and its port.
        outside: The orders that consumers outside of the window need.
        consumers: Those inside, as group and port.
    """

    size: ValueSize
    have: Perm
    producer: tuple[int, int] | None
    outside: frozenset[Perm]
    consumers: tuple[tuple[int, int], ...]


def _net(problem: Problem, net: int, place: dict[int, int]) -> _Net:
    (maker, port), *users = problem.users[net]
    return _Net(
        problem.values[net],
        problem.groups[maker].mode[port],
        (place[maker], port) if maker in place else None,
        frozenset(problem.groups[g].mode[p] for g, p in users if g not in place),
        tuple((place[g], p) for g, p in users if g in place),
    )


@lru_cache(maxsize=256)
def _cheapest(modes: tuple[tuple[Mode, ...], ...], nets: tuple[_Net, ...]) -> tuple[int, ...]:
    """For each group of a window, which of its modes to take; the present ones come first."""
    due: list[list[_Costs]] = [[] for _ in modes]  # the values whose cost is known once this group has its mode
    for net in nets:
        costs = _Costs(net, modes)
        due[max(costs.members)].append(costs)
    # What is still to come costs at least this much.
    ahead = [0] * (len(modes) + 1)
    for depth in reversed(range(len(modes))):
        ahead[depth] = ahead[depth + 1] + sum(costs.least for costs in due[depth])
    chosen = [0] * len(modes)
    best, best_cost = tuple(chosen), sum(costs.of(chosen) for known in due for costs in known)
    visited = 0

    def search(depth: int, cost: int) -> None:
        nonlocal best, best_cost, visited
        if depth == len(modes):
            best, best_cost = tuple(chosen), cost
            return
        for choice in range(len(modes[depth])):
            visited += 1
            chosen[depth] = choice
            now = cost + sum([costs.of(chosen) for costs in due[depth]])
            if now + ahead[depth + 1] < best_cost and visited <= BUDGET:
                search(depth + 1, now)

    search(0, 0)
    return best


class _Costs:
    """What a value costs, by the choices of the groups that produce or consume it."""

    def __init__(self, net: _Net, modes: tuple[tuple[Mode, ...], ...]) -> None:
        self._net = net
        self._modes = modes
        self._known: dict[tuple[int, ...], int] = {}
        self._between = cache(net.size.cost)
        users = net.consumers if net.producer is None else (net.producer, *net.consumers)
        self.members = tuple(dict.fromkeys(g for g, _ in users))
        few = prod(len(modes[g]) for g in self.members) <= MAX_ORDERS**2
        all_choices = product(*(range(len(modes[g])) for g in self.members))
        self.least = min(self._cost(choice) for choice in all_choices) if few else 0

    def of(self, chosen: Sequence[int]) -> int:
        """The cost under the choices of all groups of the window."""
        choice = tuple([chosen[g] for g in self.members])
        known = self._known.get(choice)
        return self._cost(choice) if known is None else known

    def _cost(self, choice: tuple[int, ...]) -> int:
        perms = {g: self._modes[g][i] for g, i in zip(self.members, choice, strict=True)}
        net = self._net
        have = net.have if net.producer is None else perms[net.producer[0]][net.producer[1]]
        wanted = net.outside.union([perms[g][p] for g, p in net.consumers])
        self._known[choice] = cost = sum([self._between(have, want) for want in wanted])
        return cost


def _nearest(problem: Problem, value: int, inside: set[int]) -> list[int]:
    window: list[int] = []
    values, seen = [value], {value}
    for net in values:  # grows while it is walked
        for g, _ in problem.users[net]:
            if g not in inside or g in window:
                continue
            if len(window) == WINDOW:
                return window
            window.append(g)
            new = {port.value for port in problem.groups[g].ports} - seen
            seen |= new
            values.extend(sorted(new))
    return window


def _modes_in_sight(problem: Problem, window: list[int]) -> dict[int, list[Mode]]:
    """Per group, its present mode and those that follow from the orders its neighbours have or could have."""
    modes = {g: [problem.groups[g].mode] for g in window}
    nets = sorted({port.value for g in window for port in problem.groups[g].ports})
    seen: dict[tuple[int, Perm], None] = {}  # in order of discovery

    def meet(orders: Iterable[tuple[int, Perm]]) -> None:
        queue = [order for order in dict.fromkeys(orders) if order not in seen]
        seen.update(dict.fromkeys(queue))
        for net, perm in queue:  # grows while it is walked
            for g, p in problem.users[net]:
                relate = problem.groups[g].relate if g in modes else None
                mode = relate(p, perm) if relate is not None and len(modes[g]) < MAX_ORDERS else None
                if mode is not None and mode not in modes[g]:
                    modes[g].append(mode)
                    new = [(port.value, its) for port, its in zip(problem.groups[g].ports, mode, strict=True)]
                    queue += [order for order in new if order not in seen]
                    seen.update(dict.fromkeys(new))

    meet((net, problem.groups[g].mode[p]) for net in nets for g, p in problem.users[net])
    for g in window:
        for choice in problem.groups[g].choices:
            meet((port.value, perm) for port, perm in zip(problem.groups[g].ports, choice, strict=True))
    # An order that differs in axes of size 1 costs next to nothing here and may be what another value wants.
    meet([(net, alike) for net, perm in seen for alike in _alike(perm, problem.values[net].shape)])
    return modes


def _alike(perm: Perm, shape: Sequence[Dim]) -> list[Perm]:
    """The order with one axis of size 1 held elsewhere."""
    found = []
    for axis in (a for a in perm if shape[a] == 1):
        rest = [a for a in perm if a != axis]
        found += [(*rest[:at], axis, *rest[at:]) for at in range(len(perm))]
    return found
