"""Frame numbers, likelihoods of options, and what is counted of verdicts."""

from collections.abc import Iterator

import numpy as np

from benchmarks.parity.recording import EXACT, Comparison, Recording, compare_content
from msvqa.data.medium import Medium
from msvqa.data.sampling import Numbered, mvbench_frames, numbered
from msvqa.mvbench import likelihood, sampling
from msvqa.mvbench.scores import Counts, Scores
from msvqa.mvbench.tasks import TASKS

ROUNDED = 1e-9


def frame_index(recording: Recording) -> Iterator[Comparison]:
    """Both rules for every recorded clip, and whether they agree and stay within it."""
    rows = [
        dict(zip(recording["columns"].tolist(), values, strict=True))
        for values in recording["table"].tolist()
    ]
    facts: list[tuple[bool, bool]] = []
    for number, row in enumerate(rows):
        frames, medium = _clip(row)
        clip = (int(row["n_frames"]), row["fps"], medium, int(row["num_segments"]))
        # Places count from 0, and recorded numbers as the files of a folder do.
        official = sampling.official(*clip) + frames.first
        robust = mvbench_frames(*clip) + frames.first
        yield recording.compare(f"case{number}_official", official, EXACT)
        yield recording.compare(f"case{number}_robust", robust, EXACT)
        within = (official >= frames.first) & (official <= frames.last)
        facts.append((bool(within.all()), bool((official == robust).all())))
    names = ("official_in_range", "official_equals_robust")
    expected = [tuple(bool(row[name]) for name in names) for row in rows]
    yield compare_content(recording.file, " and ".join(names), facts, expected)
    ends = [(row["first_index"], row["last_index"]) for row in rows]
    ours = [(frames.first, frames.last) for frames, _ in map(_clip, rows)]
    yield compare_content(
        recording.file, "first and last", ours, [(int(a), int(b)) for a, b in ends]
    )


def _clip(row: dict[str, float]) -> tuple[Numbered, Medium]:
    kind = "frames" if row["is_frame_folder"] else "video"
    bounds = (None if np.isnan(row[name]) else row[name] for name in ("start_s", "end_s"))
    medium = Medium("", "", kind, *bounds)
    return numbered(int(row["n_frames"]), row["fps"], medium), medium


def aggregation(recording: Recording) -> Iterator[Comparison]:
    """Averages of tasks of which one is absent and two are incomplete."""
    names = recording["tasks"].tolist()
    yield compare_content(recording.file, "tasks", [task.name for task in TASKS], names)
    fields = ("expected", "evaluated", "invalid", "correct")
    columns = [recording[name].tolist() for name in fields]
    counts = [Counts(**dict(zip(fields, row, strict=True))) for row in zip(*columns, strict=True)]
    scores = Scores(dict(zip(names, counts, strict=True)))
    found = {
        "micro_avg": scores.micro,
        "macro_avg": scores.macro,
        "coverage": scores.coverage,
        "avg_over_expected": scores.over_expected,
        "avg_if_invalid_dropped": scores.without_invalid,
    }
    for name, value in found.items():
        yield recording.compare(name, np.array(value), ROUNDED)
    yield _compare_with_gaps(recording, "per_task", np.array([c.accuracy for c in counts]))


def likelihoods(recording: Recording) -> Iterator[Comparison]:
    """Scores and choices by the likelihood of options, and by the logits of letters."""
    scores = likelihood.option_scores(
        recording["token_logprobs"], recording["n_options"], recording["n_chars"]
    )
    for name, values in scores.items():
        yield _compare_with_gaps(recording, f"{name}_score", values)
        yield recording.compare(f"pick_{name}", likelihood.pick(values), EXACT)
    logits = recording["letter_logits"]
    yield recording.compare("letter_pick", likelihood.pick(logits), EXACT)
    found = likelihood.letter_probabilities(logits)
    yield _compare_with_gaps(recording, "letter_prob", found)


def _compare_with_gaps(recording: Recording, name: str, found: np.ndarray) -> Comparison:
    """Compare arrays that have the same gaps: what is not finite must be so in both."""
    expected = recording[name]
    same = found.shape == expected.shape and np.array_equal(
        np.where(np.isfinite(found), 0, found), np.where(np.isfinite(expected), 0, expected),
        equal_nan=True,
    )  # fmt: skip
    if not same:
        return Comparison(recording.file, name, float("inf"), ROUNDED)
    known = np.isfinite(expected)
    worst = float(np.abs(found[known] - expected[known]).max(initial=0))
    return Comparison(recording.file, name, worst, ROUNDED)
