"""Minimum s-t cut by Dinic's algorithm, on integer capacities."""

from __future__ import annotations

from collections import deque

UNBOUNDED = 1 << 60


class FlowNetwork:
    """A directed graph; node 0 is the source, node 1 the sink."""

    SOURCE = 0
    SINK = 1

    def __init__(self) -> None:
        self._edges: list[list[int]] = [[], []]  # per node, the indices of its edges; edge e's reverse is e ^ 1
        self._head: list[int] = []
        self._capacity: list[int] = []

    def add_node(self) -> int:
        """Add a node and return its number."""
        self._edges.append([])
        return len(self._edges) - 1

    def add_edge(self, tail: int, head: int, capacity: int) -> None:
        """Cutting `tail` (source side) from `head` (sink side) costs `capacity`."""
        if capacity > 0 and tail != head:
            for node, to, room in ((tail, head, capacity), (head, tail, 0)):
                self._edges[node].append(len(self._head))
                self._head.append(to)
                self._capacity.append(room)

    def source_side(self) -> list[bool]:
        """Per node, whether it is on the source's side of a minimum cut."""
        while True:
            level = self._levels()
            if level[self.SINK] < 0:
                return [depth >= 0 for depth in level]
            self._saturate(level)

    def _levels(self) -> list[int]:
        level = [-1] * len(self._edges)
        level[self.SOURCE] = 0
        queue = deque([self.SOURCE])
        while queue:
            node = queue.popleft()
            for edge in self._edges[node]:
                head = self._head[edge]
                if self._capacity[edge] and level[head] < 0:
                    level[head] = level[node] + 1
                    queue.append(head)
        return level

    def _saturate(self, level: list[int]) -> None:
        """Push a blocking flow along the level graph, one augmenting path at a time, without recursion."""
        remaining = [0] * len(self._edges)  # per node, how many of its edges are known to lead nowhere
        path: list[int] = []
        node = self.SOURCE
        while True:
            if node == self.SINK:
                room = min(self._capacity[edge] for edge in path)
                for edge in path:
                    self._capacity[edge] -= room
                    self._capacity[edge ^ 1] += room
                cut = next(i for i, edge in enumerate(path) if not self._capacity[edge])
                node = self._head[path[cut] ^ 1]
                del path[cut:]
            elif remaining[node] < len(self._edges[node]):
                edge = self._edges[node][remaining[node]]
                if self._capacity[edge] and level[self._head[edge]] == level[node] + 1:
                    path.append(edge)
                    node = self._head[edge]
                else:
                    remaining[node] += 1
            elif path:
                edge = path.pop()
                node = self._head[edge ^ 1]
                remaining[node] += 1
            else:
                return
