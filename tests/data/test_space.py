"""Labelled product spaces."""

import numpy as np
import pytest

from mfgppl.data.space import StateSpace, check_labels, plain_label


def test_a_product_space_is_row_major():
    """The last coordinate moves fastest."""
    space = StateSpace.from_labels({"price": [1, 2, 3], "stock": ["low", "high"]})
    expected = ("1, low", "1, high", "2, low", "2, high", "3, low", "3, high")
    assert space.labels == expected
    np.testing.assert_array_equal(space.codes, [[0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]])
    assert (space.shape, space.size) == ((3, 2), 6)


def test_one_list_is_one_coordinate_called_state():
    """A plain list of labels keeps its labels and its order."""
    space = StateSpace.from_labels(["b", "a"])
    assert space.coordinates == {"state": ("b", "a")}
    assert space.labels == ("b", "a")


def test_a_space_of_one_state_has_one_code():
    """Size 1 keeps both axes of the codes."""
    space = StateSpace.from_labels({"x": ["only"], "y": [0]})
    assert space.size == 1
    assert space.codes.shape == (2, 1)


@pytest.mark.parametrize(
    ("value", "plain"),
    [(2.0, 2), (2.5, 2.5), (np.int64(3), 3), (np.float64(4.0), 4), ("2", "2"), (np.str_("a"), "a")],
)
def test_whole_floats_and_numpy_scalars_are_plain_labels(value, plain):
    """A label is a plain Python value, and a whole float an integer."""
    assert plain_label(value) == plain
    assert type(plain_label(value)) is type(plain)


def test_positions_follow_labels_not_order():
    """Coordinates and labels in another order land where they belong."""
    here = StateSpace.from_labels({"price": [1, 2, 3], "stock": ["low", "high"]})
    there = StateSpace.from_labels({"stock": ["high", "low"], "price": [3, 1]})
    where = here.positions_of(there, whose="the panel")
    expected = [here.labels.index(k) for k in ("3, high", "1, high", "3, low", "1, low")]
    np.testing.assert_array_equal(where, expected)


def test_positions_refuse_an_unknown_label_and_suggest_one():
    """A misspelt label is named with the one that is meant."""
    here = StateSpace.from_labels({"stock": ["low", "high"]})
    there = StateSpace.from_labels({"stock": ["low", "hihg"]})
    with pytest.raises(ValueError, match=r"'hihg' of 'stock'.*did you mean `high`"):
        here.positions_of(there, whose="the panel")


def test_positions_refuse_other_coordinates():
    """Spaces over other coordinates do not match by chance of size."""
    here = StateSpace.from_labels({"stock": ["low", "high"]})
    there = StateSpace.from_labels({"shelf": ["low", "high"]})
    with pytest.raises(ValueError, match=r"'shelf'.*'stock'"):
        here.positions_of(there, whose="the panel")


def test_labels_that_agree_as_numbers_are_repeats():
    """1 and 1.0 are one label."""
    with pytest.raises(ValueError, match="repeats the label 1"):
        check_labels("actions", [1, 1.0, 2])
