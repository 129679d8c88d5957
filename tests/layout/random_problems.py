"""Random small layout problems, and their true optimum by trying everything."""

from __future__ import annotations

from itertools import product
from random import Random

from edgekit.layout.assign import Group, Mode, Port, Problem, Relate, ValueSize
from edgekit.layout.permutation import Perm

TWO: tuple[Perm, ...] = ((0, 1, 2), (0, 2, 1))
THREE: tuple[Perm, ...] = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
SIX: tuple[Perm, ...] = (*THREE, (1, 0, 2), (0, 2, 1), (2, 1, 0))


def random_problem(random: Random, orders: tuple[Perm, ...], free: int, *, twisted: float = 0.0, picky: float = 0.0) -> Problem:
    """A graph of operators; the free ones relate their operands by a fixed transpose each, like Transpose and elementwise do.

    Args:
        orders: The permutations in play, closed under composition.
        free: How many free groups there are.
        twisted: How often an operand is related otherwise than the rest of the graph sees its value, so that no one layout of
            the values suits all free groups (x + xᵀ). Without, every value has an order that goes with every other's.
        picky: How often a free group cannot take one of the orders (like LayerNormalization).
    """
    values: list[ValueSize] = []
    groups: list[Group] = []
    seen_as: list[Perm] = []  # per value, its order where the frame of a free group is the first of `orders`

    def produce() -> Port:
        sizes = tuple(random.choice([1, 2, 3, 5, 8]) if random.random() < 0.9 else 1 for _ in range(3))
        values.append(ValueSize(sizes, 4))
        seen_as.append(random.choice(orders))
        return Port(len(values) - 1, True)

    def consume(limit: int = 3) -> list[Port]:
        count = min(len(values), random.randint(1, limit))
        return [Port(random.choice(range(len(values))), False) for _ in range(count)]

    def fix(ports: list[Port]) -> None:
        groups.append(Group(tuple(ports), tuple(random.choice(orders) for _ in ports)))

    fix([produce()])
    for _ in range(free):
        if random.random() < 0.4:
            fix([*consume(1), produce()])
        ports = (*consume(), *(produce() for _ in range(random.choice([1, 1, 2]))))
        offsets = [random.choice(orders) if random.random() < twisted else seen_as[port.value] for port in ports]
        groups.append(_free_group(random, orders, ports, offsets, picky))
    for _ in range(random.randint(1, free)):
        fix(consume(1))
    return Problem(values, groups)


def modes(group: Group, orders: tuple[Perm, ...]) -> list[Mode]:
    """Every mode of a group."""
    if group.relate is None:
        return [group.mode]
    related = [group.relate(p, order) for p in range(len(group.ports)) for order in orders]
    return list(dict.fromkeys(mode for mode in [group.mode, *related] if mode is not None))


def optimum(problem: Problem, orders: tuple[Perm, ...]) -> int:
    """The least cost of any assignment."""
    best = problem.cost()
    before = [group.mode for group in problem.groups]
    for choice in product(*(modes(group, orders) for group in problem.groups)):
        for group, mode in zip(problem.groups, choice, strict=True):
            group.mode = mode
        best = min(best, problem.cost())
    for group, mode in zip(problem.groups, before, strict=True):
        group.mode = mode
    return best


def _free_group(random: Random, orders: tuple[Perm, ...], ports: tuple[Port, ...], offsets: list[Perm], picky: float) -> Group:
    refused = {order for order in orders if random.random() < picky}
    refused.discard(orders[0])

    def mode(frame: Perm) -> Mode:
        return tuple(_composed(frame, offset) for offset in offsets)

    frames = [frame for frame in orders if frame not in refused]

    def relate(port: int, perm: Perm) -> Mode | None:
        return next((mode(frame) for frame in frames if mode(frame)[port] == perm), None)

    relation: Relate = relate
    return Group(ports, mode(orders[0]), relation)


def _composed(frame: Perm, offset: Perm) -> Perm:
    return tuple(frame[i] for i in offset)
