"""The descriptors of the standard streams, which a scheduler may have closed."""

import os

STANDARD = (0, 1, 2)


def hold_standard() -> None:
    """Open on nothing those that are closed: the next file would get their number.

    What prints, in this process or in one that it starts, would write into that file.
    """
    for descriptor in STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            # It gets the lowest number that is free, which is this one.
            os.open(os.devnull, os.O_WRONLY if descriptor else os.O_RDONLY)
