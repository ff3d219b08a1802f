"""What a result comes to: rows of a file become verdicts, and verdicts become scores."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from msvqa.errors import DataError, one_of
from msvqa.mvbench.matching import INVALID, MATCHERS, Matcher
from msvqa.mvbench.results import MEDIA_ERROR, Results, Row
from msvqa.mvbench.scores import Counts, Difference, Scores, difference, guessing, interval_by_clip
from msvqa.mvbench.tasks import BY_NAME, TASKS

Question = tuple[str, int]
"""A task, and the number of a question in its file."""


@dataclass(frozen=True)
class Verdict:
    """Whether a question is right; with circular evaluation by all of its rotations."""

    row: Row
    """The question as it stands in the annotations, or the first rotation of it."""
    right: bool
    reason: str
    """Why there is no answer that means an option; empty where there is one."""
    is_left_out: bool = False


@dataclass(frozen=True)
class Tally:
    """The verdicts of one matcher."""

    results: Results
    matcher: str
    verdicts: Mapping[Question, Verdict]

    @cached_property
    def scores(self) -> Scores:
        """Counts of every task, in the order of the leaderboard."""
        expected = self.results.header.expected
        by_task: dict[str, list[Verdict]] = defaultdict(list)
        for (task, _), verdict in self.verdicts.items():
            by_task[task].append(verdict)
        names = [task.name for task in TASKS if task.name in expected]
        return Scores({name: _counts(by_task[name], expected[name]) for name in names})

    @cached_property
    def reasons(self) -> Counter[str]:
        """How many questions have no answer, by the reason."""
        return Counter(v.reason for v in self.verdicts.values() if v.reason)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the average over questions that draws whole clips, percent."""
        counted = [verdict for verdict in self.verdicts.values() if not verdict.is_left_out]
        right = np.array([verdict.right for verdict in counted], dtype=bool)
        # Spans of one video share pictures, so the video is what is drawn.
        return interval_by_clip(right, [v.row.video.partition("[")[0] for v in counted])

    @property
    def guessing(self) -> float:
        """What guessing is worth on the questions that were asked, percent."""
        return guessing([len(verdict.row.options) for verdict in self.verdicts.values()])

    def leaderboard(self) -> dict[str, Any]:
        """Return all numbers in the order of the leaderboard, ready for JSON."""
        scores, low_high = self.scores, self.interval
        tasks = {BY_NAME[name].abbreviation: counts for name, counts in scores.tasks.items()}
        return {
            "matcher": self.matcher,
            **{name: counts.accuracy for name, counts in tasks.items()},
            scores.name: scores.micro,
            "macro": scores.macro,
            "coverage": scores.coverage,
            "n": scores.total.evaluated,
            "n_expected": scores.total.expected,
            "interval": scores.total.interval,
            "interval_by_clip": low_high,
            "intervals": {name: counts.interval for name, counts in tasks.items()},
            "invalid": dict(self.reasons),
            "guessing": self.guessing,
            "settings": dict(self.results.header.settings),
            "annotations": self.results.header.annotations,
        }


def tally(results: Results, matcher: str = "robust") -> Tally:
    """Return the verdicts of a matcher on all rows of a result.

    Raises:
        DataError: there is no such matcher.
    """
    if matcher not in MATCHERS:
        raise DataError(f"no matcher {matcher!r}; there are {one_of(MATCHERS)}")
    by_question: dict[Question, list[Row]] = defaultdict(list)
    for row in results.rows.values():
        by_question[row.task, row.index].append(row)
    circular = bool(results.header.settings.get("circular"))
    verdicts = {
        question: _verdict(sorted(rows, key=lambda row: row.rotation), MATCHERS[matcher])
        for question, rows in sorted(by_question.items())
        # A question of which rotations are still to be asked has no verdict yet.
        if not circular or len(rows) == len(rows[0].options)
    }
    return Tally(results, matcher, verdicts)


def _verdict(rows: Sequence[Row], matcher: Matcher) -> Verdict:
    empty = not matcher.counts_empty and not any(row.scored.strip(" (") for row in rows)
    right = not empty and all(_is_right(row, matcher) for row in rows)
    reasons = (row.reason for row in rows if row.reason in (*INVALID, MEDIA_ERROR))
    return Verdict(rows[0], right, next(reasons, ""), empty)


def _is_right(row: Row, matcher: Matcher) -> bool:
    if row.reason == MEDIA_ERROR:
        return matcher.failed_is_right
    return matcher.verdict(matcher.text(row.scored), row.options, row.gold)


def _counts(verdicts: Sequence[Verdict], expected: int) -> Counts:
    return Counts(
        expected=expected,
        evaluated=len(verdicts),
        correct=sum(verdict.right for verdict in verdicts),
        invalid=sum(bool(verdict.reason) for verdict in verdicts),
        left_out=sum(verdict.is_left_out for verdict in verdicts),
    )


@dataclass(frozen=True)
class Pair:
    """Two results on the questions that both have answered."""

    tasks: Mapping[str, Difference]
    total: Difference
    only_one: int
    """Questions that only one of them has answered; they are not compared."""


def compare(first: Tally, second: Tally) -> Pair:
    """Compare two results question by question.

    Raises:
        DataError: they are of other questions, or have none in common.
    """
    if first.results.header.annotations != second.results.header.annotations:
        raise DataError("these results are of different annotation files, and cannot be compared")
    both = [question for question in first.verdicts if question in second.verdicts]
    if not both:
        raise DataError("these results have no question in common")
    right = np.array(
        [(first.verdicts[q].right, second.verdicts[q].right) for q in both], dtype=bool
    )  # (n, 2)
    task = np.array([name for name, _ in both])
    names = [each.name for each in TASKS if each.name in task]
    return Pair(
        tasks={name: difference(*right[task == name].T) for name in names},
        total=difference(*right.T),
        only_one=len(first.verdicts.keys() ^ second.verdicts.keys()),
    )
