"""Counting: accuracy per task, over all questions and over tasks, with what it was counted over.

Averages are in percent, as MVBench has them. What was not asked lowers the coverage and never the
denominator in silence; what was asked and gave no answer is wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msvqa.metrics import interval_by_video, mcnemar, wilson_interval
from msvqa.mvbench.tasks import QUESTIONS_PER_TASK, TASKS


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The questions of one task."""

    expected: int
    """In the annotations."""
    evaluated: int
    """That were asked."""
    correct: int
    invalid: int = 0
    """Asked, without an answer that means an option; they are wrong."""
    left_out: int = 0
    """Asked, and not in the denominator: only some matchers do that."""

    @property
    def counted(self) -> int:
        """The denominator."""
        return self.evaluated - self.left_out

    @property
    def accuracy(self) -> float:
        """Percent; not a number where nothing was asked."""
        return 100 * self.correct / self.counted if self.counted else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Percent, 95 % by Wilson."""
        low, high = wilson_interval(self.correct, self.counted)
        return 100 * low, 100 * high


@dataclass(frozen=True)
class Scores:
    """All tasks of the benchmark, in their order."""

    tasks: Mapping[str, Counts]

    def _sum(self, name: str) -> int:
        return sum(getattr(counts, name) for counts in self.tasks.values())

    @cached_property
    def total(self) -> Counts:
        """Return all questions together; its accuracy is the published average (micro)."""
        names = ("expected", "evaluated", "correct", "invalid", "left_out")
        return Counts(**{name: self._sum(name) for name in names})

    @property
    def micro(self) -> float:
        """Percent of all questions that were asked: the published average where all were."""
        return self.total.accuracy

    @property
    def macro(self) -> float:
        """Mean over the tasks that were asked, percent."""
        known = [counts.accuracy for counts in self.tasks.values() if counts.counted]
        return float(np.mean(known)) if known else float("nan")

    @property
    def coverage(self) -> float:
        """Which part of the questions of the annotations was asked."""
        return self.total.evaluated / self.total.expected if self.total.expected else float("nan")

    @property
    def over_expected(self) -> float:
        """Percent of all questions, also of those that were not asked."""
        expected = self.total.expected
        return 100 * self.total.correct / expected if expected else float("nan")

    @property
    def without_invalid(self) -> float:
        """What a program reports that drops questions without an answer; it is no result."""
        answered = self.total.evaluated - self.total.invalid
        return 100 * self.total.correct / answered if answered else float("nan")

    @property
    def name(self) -> str:
        """What the average may be called: the published name only where nothing is missing."""
        if self.total.evaluated < self.total.expected:
            return "partial"
        sizes = [counts.expected for counts in self.tasks.values()]
        return "MVBench Avg" if sizes == [QUESTIONS_PER_TASK] * len(TASKS) else "average"


def guessing(options: Sequence[int]) -> float:
    """Return the expected accuracy of guessing, percent, by how many options questions have.

    The published 27.3 is the number of questions over that of options, which no guessing gives.
    """
    return 100 * float(np.mean(1 / np.asarray(options))) if len(options) else float("nan")


def interval_by_clip(right: np.ndarray, clip: Sequence[str]) -> tuple[float, float]:
    """Return a 95 % interval in percent that draws whole clips: questions of one are no strangers.

    Args:
        right: (n,) whether each question is.
        clip: (n,) the clip of each, with its media folder: folders share names of files.
    """
    low, high = interval_by_video(right, np.asarray(clip))
    return 100 * low, 100 * high


@dataclass(frozen=True)
class Difference:
    """Two models on the same questions."""

    n: int
    first: float
    """Accuracy in percent."""
    second: float
    only_first: int
    only_second: int

    @property
    def p_value(self) -> float:
        """That they are right equally often: McNemar's exact test."""
        return mcnemar(self.only_first, self.only_second)


def difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """Compare whether questions (n,) are right by one model and by another."""
    n = len(first)
    return Difference(
        n=n,
        first=100 * float(np.mean(first)) if n else float("nan"),
        second=100 * float(np.mean(second)) if n else float("nan"),
        only_first=int((first & ~second).sum()),
        only_second=int((second & ~first).sum()),
    )
