"""Orientation: all eight ways to show a rectangle, from the display matrix."""

import itertools

import numpy as np
import pytest

from msvqa.data.orientation import Orientation

PICTURE = np.arange(2 * 3 * 3).reshape(2, 3, 3)
UPRIGHT = [(a, 0, 0, d) for a, d in itertools.product((1, -1), repeat=2)]
LYING = [(0, b, c, 0) for b, c in itertools.product((1, -1), repeat=2)]


def nine(a, b, c, d):
    return [a, b, 0, c, d, 0, 0, 0, 1 << 30]


def show(picture, a, b, c, d):
    """Put every pixel where the matrix says, one by one."""
    height, width, channels = picture.shape
    points = {
        (a * p + c * q, b * p + d * q): picture[q, p] for q in range(height) for p in range(width)
    }
    columns, rows = sorted({x for x, _ in points}), sorted({y for _, y in points})
    shown = [[points[x, y] for x in columns] for y in rows]
    return np.array(shown).reshape(len(rows), len(columns), channels)


@pytest.mark.parametrize("matrix", [*UPRIGHT, *LYING])
def test_every_pixel_is_shown_where_the_matrix_says(matrix):
    orientation = Orientation.of_matrix(nine(*(value << 16 for value in matrix)))
    np.testing.assert_array_equal(orientation.apply(PICTURE), show(PICTURE, *matrix))
    a, b, c, d = matrix
    assert orientation.is_mirrored == (a * d - b * c < 0)


def test_the_eight_differ():
    assert len({Orientation.of_matrix(nine(*matrix)) for matrix in [*UPRIGHT, *LYING]}) == 8


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90, 89, 91, 30, -44])
def test_an_angle_turns_by_the_nearest_quarters(degrees):
    found = Orientation.of_angle(degrees).apply(PICTURE)
    np.testing.assert_array_equal(found, np.rot90(PICTURE, k=round(degrees / 90)))


def test_a_matrix_of_zeros_changes_nothing():
    assert Orientation.of_matrix([0] * 9) == Orientation()
