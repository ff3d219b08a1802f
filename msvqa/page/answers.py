"""Answers of an evaluated split: accuracy per type, examples, and the most frequent mistakes."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msvqa.page.figures import TypeAccuracy
from msvqa.page.footage import Footage
from msvqa.page.pictures import Picture, spread, strip

Row = Mapping[str, Any]

EXAMPLES = 6
"""Of right and of wrong answers each."""
STRIP_FRAMES = 5
MISTAKES_PER_TYPE = 6
MISTAKEN_TYPES = 12


@dataclass(frozen=True)
class Candidate:
    """One of the best answers."""

    text: str
    probability: float
    right: bool


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question with what the model answered."""

    row: Row
    candidates: Sequence[Candidate]
    strip: Picture | None
    reason: str
    """Why there is no strip."""


@dataclass(frozen=True)
class Mistake:
    """How often one answer was taken for another."""

    answer: str
    predicted: str
    count: int
    asked: int
    """Questions of the type with this answer."""


def type_accuracies(metrics: Mapping[str, Any]) -> list[TypeAccuracy]:
    """Return the types by number of questions, after the accuracy of all of them."""
    kinds = sorted(metrics["per_type"].items(), key=lambda item: (-item[1]["n"], item[0]))
    return [type_accuracy(kind, numbers) for kind, numbers in [("all", metrics), *kinds]]


def type_accuracy(kind: str, numbers: Mapping[str, Any]) -> TypeAccuracy:
    """Return the accuracy of a type, or of a whole split."""
    low, high = numbers.get("accuracy_interval") or (None, None)
    return TypeAccuracy(
        kind=kind,
        n=numbers["n"],
        accuracy=numbers["accuracy"],
        low=low,
        high=high,
        question_only=numbers["question_only_accuracy"],
    )


def choose_examples(rows: Sequence[Row], right: bool, count: int = EXAMPLES) -> list[Row]:
    """Return right or wrong rows: types in turn, and each video once where there are enough.

    They are always the same ones: the order within a type is that of a hash of the question's
    number, so nobody picked them.
    """
    chosen = sorted((row for row in rows if row["correct"] == right), key=_hash)
    turn: Counter[str] = Counter()
    ranked = []
    for row in chosen:
        ranked.append((turn[row["type"]], row["type"], row))
        turn[row["type"]] += 1
    ordered = [row for _, _, row in sorted(ranked, key=lambda entry: entry[:2])]
    first: dict[str, Row] = {}
    for row in ordered:
        first.setdefault(row["video_id"], row)
    again = [row for row in ordered if row is not first[row["video_id"]]]
    return [*first.values(), *again][:count]


def show_examples(rows: Sequence[Row], footage: Footage) -> list[Example]:
    """Return questions with frames and candidates."""
    footage.load(row["video_id"] for row in rows)
    return [_example(row, footage) for row in rows]


def common_mistakes(rows: Sequence[Row]) -> dict[str, list[Mistake]]:
    """Return the most frequent wrong answers of each type, types by number of mistakes."""
    asked = Counter((row["type"], row["answer"]) for row in rows)
    wrong = Counter(
        (row["type"], row["answer"], row["predicted"])
        for row in rows
        if not row["correct"] and row["predicted"] is not None
    )
    of_type = Counter(row["type"] for row in rows if not row["correct"])
    found: dict[str, list[Mistake]] = {kind: [] for kind in _most_frequent(of_type)}
    for kind, answer, predicted in _most_frequent(wrong):
        count = wrong[kind, answer, predicted]
        found[kind].append(Mistake(answer, predicted, count, asked[kind, answer]))
    return {kind: found[kind][:MISTAKES_PER_TYPE] for kind in list(found)[:MISTAKEN_TYPES]}


def _most_frequent(counts: Counter[Any]) -> list[Any]:
    return sorted(counts, key=lambda key: (-counts[key], key))


def _hash(row: Row) -> str:
    return hashlib.sha256(str(row["question_id"]).encode()).hexdigest()


def _example(row: Row, footage: Footage) -> Example:
    pairs = zip(row["top"], row["probability"], strict=True)
    clips = footage.clips.get(row["video_id"])
    return Example(
        row=row,
        candidates=[Candidate(text, p, text == row["answer"]) for text, p in pairs],
        strip=None if clips is None else strip(spread(clips, STRIP_FRAMES)),
        reason=footage.reasons.get(row["video_id"], ""),
    )
