"""The cut that is found weighs as little as any cut."""

from itertools import product
from random import Random

from edgekit.layout.maxflow import UNBOUNDED, FlowNetwork


def test_the_cut_is_minimal_on_random_networks() -> None:
    random = Random(0)
    for _ in range(300):
        network, inner = FlowNetwork(), random.randint(0, 7)
        nodes = [network.SOURCE, network.SINK, *(network.add_node() for _ in range(inner))]
        edges = []
        for _ in range(random.randint(1, 25)):
            tail, head = random.choice(nodes), random.choice(nodes)
            capacity = UNBOUNDED if random.random() < 0.1 and {tail, head} != {0, 1} else random.randint(-2, 9)
            edges.append((tail, head, capacity))
            network.add_edge(tail, head, capacity)

        def weight(side: list[bool], edges: list[tuple[int, int, int]] = edges) -> int:
            return sum(max(0, c) for tail, head, c in edges if side[tail] and not side[head])

        least = min(weight([True, False, *rest]) for rest in product([True, False], repeat=inner))
        found = network.source_side()
        assert (found[network.SOURCE], found[network.SINK]) == (True, False) or least >= UNBOUNDED
        assert weight(found) == least or least >= UNBOUNDED


def test_a_chain_is_cut_at_its_weakest_edge() -> None:
    network = FlowNetwork()
    a, b = network.add_node(), network.add_node()
    network.add_edge(network.SOURCE, a, 5)
    network.add_edge(a, b, 2)
    network.add_edge(b, network.SINK, 7)
    assert network.source_side() == [True, False, True, False]
