"""What measured rates say of a whole run on MSVD-QA, beside what is published."""

from typing import NamedTuple

VISITS = {1: 30_933, 8: 4_380}
"""Of the encoders in an epoch of training on MSVD-QA, by questions per video: the sum of
ceil(questions / k) over its 1,161 videos"""
SECONDS_PER_HOUR = 3600


class Published(NamedTuple):
    """What an epoch of training on MSVD-QA takes elsewhere."""

    epoch: float
    unit: str
    card: str

    def beside(self, epoch: float) -> str:
        """Return an epoch of ours, in the same unit, with what is published."""
        return (
            f"{epoch:.3g}; published {self.epoch:g} {self.unit} on {self.card}, "
            f"{self.epoch / epoch:.3g} times as long"
        )


MSVQA = Published(2.0, "h", "an RTX 3090")
DUALVGR = Published(84.0, "s", "an RTX 3080")


def hours_of_epoch(seconds_per_visit: float, k: int) -> float:
    """Return the hours of an epoch of training from pixels, without waiting for them.

    Args:
        seconds_per_visit: of a step, for each video in it.
        k: questions per video, one of `VISITS`.
    """
    return VISITS[k] * seconds_per_visit / SECONDS_PER_HOUR
