"""What a Reshape lets through."""

import pytest

from edgekit.layout.reshape import blocks, carry


@pytest.mark.parametrize(
    ("source", "result", "expected"),
    [
        ((2, 3, 4, 5), (2, 3, 20), (((0,), (0,)), ((1,), (1,)), ((2, 3), (2,)))),
        ((2, 12, 5), (2, 3, 4, 5), (((0,), (0,)), ((1,), (1, 2)), ((2,), (3,)))),
        ((1, 6, 1, 1), (1, 6), (((1,), (1,)),)),
        ((4, 6), (6, 4), (((0, 1), (0, 1)),)),
        (("N", 8, 4), ("N", 32), (((0,), (0,)), ((1, 2), (1,)))),
        (("N", 8), (8, "N"), (((0, 1), (0, 1)),)),
    ],
)
def test_axes_pair_up_in_blocks_of_equal_size(source: tuple, result: tuple, expected: tuple) -> None:
    assert blocks(source, result) == expected


@pytest.mark.parametrize(("source", "result"), [((0, 3), (3, 0)), (("N", 4), ("M", 4)), ((2, 3), (2, 4))])
def test_sizes_that_do_not_match_have_no_blocks(source: tuple, result: tuple) -> None:
    assert blocks(source, result) is None


def test_whole_blocks_move_and_torn_ones_do_not() -> None:
    shapes = (2, 3, 4, 5), (2, 3, 20)
    paired = blocks(*shapes)
    assert paired is not None
    assert carry((0, 2, 3, 1), paired, 0, shapes) == (0, 2, 1)
    assert carry((0, 2, 1), paired, 1, shapes) == (0, 2, 3, 1)
    assert carry((0, 2, 1, 3), paired, 0, shapes) is None
    assert carry((0, 3, 2, 1), paired, 0, shapes) is None


def test_a_loose_block_only_has_to_stay_together() -> None:
    shapes = (2, 3, 4, 5), (2, 60)
    paired = blocks(*shapes)
    assert paired is not None
    assert carry((0, 2, 3, 1), paired, 0, shapes) is None
    assert carry((0, 2, 3, 1), paired, 0, shapes, loose=[paired[1]]) == (0, 1)
    assert carry((2, 0, 3, 1), paired, 0, shapes, loose=[paired[1]]) is None
