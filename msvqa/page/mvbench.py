"""The HTML page of a result of MVBench: a table of tasks with intervals, matchers, examples."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from msvqa.data.datasets.mvbench import Item, MVBench
from msvqa.data.video import IsolatedDecoder, View, medium_file
from msvqa.errors import DataError, StorageError, VideoError
from msvqa.files import written_aside
from msvqa.mvbench.controls import controlled
from msvqa.mvbench.matching import MATCHERS
from msvqa.mvbench.results import Header, Row
from msvqa.mvbench.run import medium_of, open_benchmark, view_of
from msvqa.mvbench.tally import Tally, Verdict, tally
from msvqa.mvbench.tasks import BY_NAME, GROUPS
from msvqa.page.pictures import Picture, strip
from msvqa.page.template import fill

FRAMES_SHOWN = 6
FRAME_PX = 160
EXAMPLES = 6
"""Of right and of wrong answers each, of different tasks where there are so many."""
TEXTS_PER_REASON = 5


@dataclass(frozen=True)
class Example:
    """A question with its answer, and what the model saw of the clip."""

    verdict: Verdict
    picture: Picture | None
    """None where the clip is no longer there, or cannot be read."""


def write_page(found: Tally, page: Path) -> None:
    """Write the page of a result; frames are read where the media are still there."""
    header = found.results.header
    chosen = [*_chosen(found, right=True), *_chosen(found, right=False)]
    pictures, problem = _pictures(header, [verdict.row for verdict in chosen])
    text = fill(
        "mvbench.html.j2",
        tally=found,
        scores=found.scores,
        header=header,
        abbreviation={name: BY_NAME[name].abbreviation for name in found.scores.tasks},
        groups=_groups(found),
        matchers={name: tally(found.results, name).scores for name in MATCHERS},
        unanswered=_unanswered(found.verdicts.values()),
        examples=[Example(verdict, pictures.get(verdict.row.key)) for verdict in chosen],
        problem=problem,
        written_at=datetime.now(timezone.utc),
    )
    with written_aside(page) as aside:
        aside.write_text(text, encoding="utf-8")


def _groups(found: Tally) -> dict[str, float]:
    """Return the mean accuracy of the tasks of each group of the paper, percent."""
    of_task = {BY_NAME[name].abbreviation: counts for name, counts in found.scores.tasks.items()}
    groups = {}
    for group, names in GROUPS.items():
        counted = [of_task[name].accuracy for name in names if name in of_task]
        known = [accuracy for accuracy in counted if not np.isnan(accuracy)]
        if known:
            groups[group] = float(np.mean(known))
    return groups


def _chosen(found: Tally, *, right: bool) -> list[Verdict]:
    """Return the first question of each task that is right, or wrong, then the second ones."""
    by_task: dict[str, list[Verdict]] = defaultdict(list)
    for (task, _), verdict in found.verdicts.items():
        if verdict.right == right:
            by_task[task].append(verdict)
    ranked = [(place, verdict) for of in by_task.values() for place, verdict in enumerate(of)]
    return [verdict for _, verdict in sorted(ranked, key=lambda pair: pair[0])][:EXAMPLES]


def _unanswered(verdicts: Iterable[Verdict]) -> dict[str, list[tuple[Row, int]]]:
    """Return the most frequent texts of each reason: the first row of each, and how many have it.

    The most frequent reason comes first.
    """
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for verdict in verdicts:
        if verdict.reason:
            found[verdict.reason][verdict.row.error or verdict.row.scored].append(verdict.row)
    reasons = sorted(found.items(), key=lambda item: -sum(map(len, item[1].values())))
    return {
        reason: [
            (rows[0], len(rows))
            for rows in sorted(texts.values(), key=len, reverse=True)[:TEXTS_PER_REASON]
        ]
        for reason, texts in reasons
    }


def _pictures(header: Header, rows: Sequence[Row]) -> tuple[Mapping[str, Picture], str]:
    """Return what the model saw of some clips, by the key of the row; and why some are absent."""
    try:
        dataset = open_benchmark(header.media)
        items = {(item.task, item.index): item for item in dataset.read().items}
    except (DataError, StorageError) as error:
        return {}, str(error)
    settings, problem = header.settings, ""
    view = view_of(settings["sampler"], settings["frames"], FRAME_PX)
    pictures: dict[str, Picture] = {}
    decoder = IsolatedDecoder()
    try:
        for row in rows:
            seen = _seen(decoder, dataset, items.get((row.task, row.index)), row, view)
            if isinstance(seen, str):
                problem = seen
            else:
                pictures[row.key] = _strip(controlled(seen, settings["control"], row.video))
    finally:
        decoder.close()
    return pictures, problem


def _seen(
    decoder: IsolatedDecoder, dataset: MVBench, item: Item | None, row: Row, view: View
) -> np.ndarray | str:
    """Return the frames (T, H, W, 3) of a clip, or why there are none."""
    if item is None or item.place.id != row.video:
        return f"{row.task} {row.index} is another question now"
    try:
        medium = medium_of(dataset, item, dataset.find(item))
        with medium_file(medium) as path:
            decoded = decoder.look(path, medium, view)
    except (VideoError, StorageError) as error:
        return str(error)
    return decoded.frames[view.size_px]


def _strip(frames: np.ndarray) -> Picture:
    """Return some of the frames (T, H, W, 3), spread over all."""
    chosen = np.linspace(0, len(frames) - 1, min(FRAMES_SHOWN, len(frames))).round().astype(int)
    return strip(frames[chosen])
