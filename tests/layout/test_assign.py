"""The chosen assignment is the cheapest there is, as far as everything can be tried."""

from random import Random

import pytest

from edgekit.layout import assign
from edgekit.layout.assign import Group, Port, Problem, ValueSize
from tests.layout.random_problems import SIX, THREE, TWO, optimum, random_problem

NCHW, NHWC = (0, 1, 2, 3), (0, 2, 3, 1)


@pytest.mark.parametrize("seed", range(60))
def test_the_minimum_cut_alone_is_optimal_between_two_layouts(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assign, "MAX_WINDOWS", 0)
    problem = random_problem(Random(seed), TWO, free=7, picky=0.2)
    best = optimum(problem, TWO)
    problem.solve()
    assert problem.cost() == best


@pytest.mark.parametrize(("orders", "free"), [(TWO, 7), (THREE, 4), (SIX, 2)])
@pytest.mark.parametrize("twisted", [0.0, 0.4])
def test_a_region_of_few_groups_is_solved_exactly_whatever_competes(orders: tuple, free: int, twisted: float) -> None:
    for seed in range(25):
        problem = random_problem(Random(seed), orders, free, twisted=twisted, picky=0.2)
        best = optimum(problem, orders)
        problem.solve()
        assert problem.cost() == best


def test_solving_never_costs_more_than_the_graph_as_it_was() -> None:
    for seed in range(8):
        problem = random_problem(Random(seed), SIX, free=40, twisted=0.3, picky=0.3)
        before = problem.cost()
        problem.solve()
        assert problem.cost() <= before


def test_one_transpose_serves_all_consumers_that_need_it() -> None:
    value = ValueSize((1, 8, 4, 4), 4)
    producer = Group((Port(0, True),), (NCHW,))
    consumers = [Group((Port(0, False),), (NHWC,)) for _ in range(3)]
    assert Problem([value], [producer, *consumers]).cost() == assign.SCATTERED_PASSES * 4 * 128 + assign.TRANSPOSE_OVERHEAD


def test_a_transpose_moves_to_where_the_value_is_small() -> None:
    """in (1,64,8,8) NCHW → Reduce over channels → a spatial operator: transpose the 64 sums, not the 4096 elements."""
    big, small = ValueSize((1, 64, 8, 8), 4), ValueSize((1, 2, 8, 8), 4)
    follow = Group((Port(0, False), Port(1, True)), (NHWC, NHWC), lambda port, perm: (perm, perm))
    problem = Problem([big, small], [Group((Port(0, True),), (NCHW,)), follow, Group((Port(1, False),), (NHWC,))])
    problem.solve()
    assert follow.mode == (NCHW, NCHW)
    assert problem.cost() == small.cost(NCHW, NHWC)


def test_a_transpose_that_moves_whole_runs_is_cheaper() -> None:
    value = ValueSize((1, 64, 8, 32), 4)
    assert value.cost(NCHW, (0, 2, 1, 3)) < value.cost(NCHW, (0, 2, 3, 1))


def test_axes_of_size_1_move_for_the_price_of_a_reshape() -> None:
    assert ValueSize((1, 256, 1, 1), 4).cost(NCHW, NHWC) == assign.RESHAPE_COST
    assert ValueSize(("N", 256, 1, 1), 4).cost(NCHW, NHWC) == assign.RESHAPE_COST
