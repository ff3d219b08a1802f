"""What people should know of their questions before they train: said once, with counts."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]
"""A question as the annotations have it: split, question, answer, source and number."""

UNSEEN_WORDS = 0.1
"""Share of the words of a split that training has never seen, from which on it is said."""
UNSEEN_ANSWERS = 0.25
"""Share of the questions of a split whose answer training has never seen, likewise."""
MANY_WORDS = 100
SHOWN = 3


def cautions(rows: Sequence[Row], tokens: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what is odd about questions that can be used.

    Args:
        rows: the questions of all splits.
        tokens: the words of every question.
    """
    return [
        *_no_validation(rows),
        *_spellings(rows),
        *_unseen(rows, tokens),
        *_long_questions(rows, tokens),
    ]


def _no_validation(rows: Sequence[Row]) -> Iterator[str]:
    if not any(row["split"] == "val" for row in rows):
        yield (
            "no question is for validation: without folds nothing validates, and the last "
            "checkpoint counts as the best"
        )


def _spellings(rows: Sequence[Row]) -> Iterator[str]:
    spelled: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        spelled[_normalized(row["answer"])][row["answer"]] += 1
    several = [found for found in spelled.values() if len(found) > 1]
    if several:
        several.sort(key=lambda found: -found.total())
        examples = "; ".join(", ".join(map(repr, found)) for found in several[:SHOWN])
        yield (
            f"{sum(map(len, several))} answers are {len(several)} that differ only in case, spaces "
            f"or a full stop ({examples}): each counts as another answer, write them alike"
        )


def _normalized(answer: str) -> str:
    return " ".join(answer.casefold().rstrip(". ").split())


def _unseen(rows: Sequence[Row], tokens: Mapping[str, Sequence[str]]) -> Iterator[str]:
    train = [row for row in rows if row["split"] == "train"]
    answers = {row["answer"] for row in train}
    words = {word for row in train for word in tokens[row["question"]]}
    for split in dict.fromkeys(row["split"] for row in rows if row["split"] != "train"):
        chosen = [row for row in rows if row["split"] == split]
        asked = [word for row in chosen for word in tokens[row["question"]] if word[-1:].isalnum()]
        new = Counter(word for word in asked if word not in words)
        if asked and new.total() >= UNSEEN_WORDS * len(asked):
            yield f"{split}: {_share(new, len(asked))} words are in no question of training"
        other = Counter(row["answer"] for row in chosen if row["answer"] not in answers)
        if other.total() >= UNSEEN_ANSWERS * len(chosen):
            yield f"{split}: {_share(other, len(chosen))} answers are in no question of training"


def _share(counts: Counter[str], total: int) -> str:
    examples = ", ".join(repr(text[:30]) for text, _ in counts.most_common(SHOWN))
    return f"{counts.total()} of {total} ({counts.total() / total:.0%}; {examples})"


def _long_questions(rows: Sequence[Row], tokens: Mapping[str, Sequence[str]]) -> Iterator[str]:
    long = [row for row in rows if len(tokens[row["question"]]) > MANY_WORDS]
    if long:
        first = max(long, key=lambda row: len(tokens[row["question"]]))
        usual = int(np.median([len(tokens[row["question"]]) for row in rows]))
        place = f"row {first['number']} of {first['source']}"
        yield (
            f"{len(long)} of {len(rows)} questions have more than {MANY_WORDS} words ({place}: "
            f"{len(tokens[first['question']])}, half of all at most {usual}): a batch with one "
            "takes as much memory as if all its questions were as long"
        )
