"""Orientation: how a stored picture is turned and mirrored before it is shown.

Files say so with a display matrix [a b u; c d v; x y w] (ISO/IEC 14496-12, 6.2.2): the point
(p, q), q counted downwards, is shown at (a p + c q + x, b p + d q + y). Its angle alone does not
tell a mirrored picture from a turned one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to put a rectangle on itself: exchange the axes first, then mirror."""

    exchanges_axes: bool = False
    mirrors_columns: bool = False
    """Left becomes right."""
    mirrors_rows: bool = False
    """Top becomes bottom."""

    @classmethod
    def of_matrix(cls, matrix: Sequence[float]) -> "Orientation":
        """Return what the nine numbers of a display matrix ask for.

        Of a matrix that turns by other angles than quarters, the nearest: pictures stay
        rectangles, without corners of nothing.
        """
        a, b, _, c, d = matrix[:5]
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    @classmethod
    def of_angle(cls, degrees: float) -> "Orientation":
        """Return the turn by an angle, counterclockwise."""
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        return cls.of_matrix([cosine, -sine, 0, sine, cosine])

    @property
    def is_mirrored(self) -> bool:
        """Whether no turn alone gives the same."""
        return (self.exchanges_axes + self.mirrors_columns + self.mirrors_rows) % 2 == 1

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Return a view of a picture (height, width, channels) as it is shown."""
        if self.exchanges_axes:
            picture = picture.swapaxes(0, 1)
        if self.mirrors_columns:
            picture = picture[:, ::-1]
        return picture[::-1] if self.mirrors_rows else picture
