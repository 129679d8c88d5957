"""The best modes of a few neighbouring groups while all others stay: a search that tries everything and gives up on what is
already too dear.

Expansion moves (edgekit.layout.assign) are exact for two competing layouts. Where three or more meet, or where the layouts of
a value contradict each other around a cycle (x + xᵀ), they can stop short of the optimum, and always locally: around a value
that is still transposed. That is where a window is opened. A region that fits into one is solved exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from edgekit.layout.permutation import Dim, Perm

if TYPE_CHECKING:
    from edgekit.layout.assign import Mode, Problem

WINDOW = 9  # groups
MAX_ORDERS = 12  # modes per group
BUDGET = 1500  # partial assignments looked at


def best_modes(problem: Problem, value: int, inside: set[int]) -> dict[int, Mode]:
    """Modes for the free groups nearest to `value` that cost least together, of those that any order in sight leads to."""
    window = _nearest(problem, value, inside)
    modes = _modes_in_sight(problem, window)
    nets = [_Net(problem, net, modes) for net in sorted({port.value for g in window for port in problem.groups[g].ports})]
    due: list[list[_Net]] = [[] for _ in window]  # the values whose cost is known once this group has its mode
    for net in nets:
        due[max(window.index(g) for g in net.members)].append(net)
    # What is still to come costs at least this much.
    ahead = [0] * (len(window) + 1)
    for depth in reversed(range(len(window))):
        ahead[depth] = ahead[depth + 1] + sum(net.least for net in due[depth])
    chosen = dict.fromkeys(window, 0)  # the present modes come first
    best, best_cost = dict(chosen), sum(net.cost(chosen) for net in nets)
    visited = 0

    def search(depth: int, cost: int) -> None:
        nonlocal best, best_cost, visited
        if depth == len(window):
            best, best_cost = dict(chosen), cost
            return
        for choice in range(len(modes[window[depth]])):
            visited += 1
            chosen[window[depth]] = choice
            now = cost + sum(net.cost(chosen) for net in due[depth])
            if now + ahead[depth + 1] < best_cost and visited <= BUDGET:
                search(depth + 1, now)

    search(0, 0)
    return {g: modes[g][choice] for g, choice in best.items()}


class _Net:
    """What a value costs, by the choices of the window's groups that produce or consume it."""

    def __init__(self, problem: Problem, net: int, modes: dict[int, list[Mode]]) -> None:
        users = problem.users[net]
        self._size = problem.values[net]
        self._modes = modes
        self._producer = users[0] if users[0][0] in modes else None
        self._have = problem.groups[users[0][0]].mode[users[0][1]]
        self._outside = {problem.groups[g].mode[p] for g, p in users[1:] if g not in modes}
        self._movable = [(g, p) for g, p in users[1:] if g in modes]
        self._known: dict[tuple[int, ...], int] = {}
        self.members = list(dict.fromkeys(g for g, _ in users if g in modes))
        few = prod(len(modes[g]) for g in self.members) <= MAX_ORDERS**2
        all_choices = product(*(range(len(modes[g])) for g in self.members))
        self.least = min(self.cost(dict(zip(self.members, choice, strict=True))) for choice in all_choices) if few else 0

    def cost(self, chosen: dict[int, int]) -> int:
        key = tuple([chosen[g] for g in self.members])
        if key not in self._known:
            have = self._have
            if self._producer is not None:
                have = self._modes[self._producer[0]][chosen[self._producer[0]]][self._producer[1]]
            wanted = self._outside.union([self._modes[g][chosen[g]][p] for g, p in self._movable])
            self._known[key] = sum(self._size.cost(have, want) for want in wanted)
        return self._known[key]


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
