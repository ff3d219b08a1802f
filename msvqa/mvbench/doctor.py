"""Is a root of MVBench whole? Every question and every medium is looked at before a model is."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msvqa.data.datasets.mvbench import SPLIT, Item
from msvqa.data.medium import Medium
from msvqa.data.placed_media import Found, Place, media_problems
from msvqa.data.sampling import Numbered, numbered
from msvqa.data.schema import Problem
from msvqa.data.video import IsolatedDecoder, medium_file
from msvqa.errors import VideoError
from msvqa.mvbench.run import fingerprint, open_benchmark
from msvqa.mvbench.sampling import is_repaired
from msvqa.mvbench.tasks import QUESTIONS_PER_TASK
from msvqa.storage import join

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TaskState:
    """What there is of one task."""

    name: str
    folder: str
    expected: int
    usable: int
    """Questions without a mistake."""
    present: int
    """Questions that can be asked: usable, and with a medium that is there."""


@dataclass(frozen=True)
class Diagnosis:
    """What there is of the benchmark, and what is wrong with it."""

    root: str
    annotations: str
    """Fingerprint of the annotation files."""
    tasks: Sequence[TaskState]
    problems: Sequence[Problem]
    looked_into: bool
    """Whether the media were read, or only looked for."""

    @property
    def coverage(self) -> float:
        """Which part of all questions can be asked."""
        expected = sum(task.expected for task in self.tasks)
        return sum(task.present for task in self.tasks) / expected if expected else 0.0

    @property
    def is_published_size(self) -> bool:
        """Whether there are twenty tasks of 200 questions."""
        return [task.expected for task in self.tasks] == [QUESTIONS_PER_TASK] * 20


def doctor(
    root: str, *, media: bool = False, timeout_s: float = 60.0, progress: Progress | None = None
) -> Diagnosis:
    """Return what is there and what is wrong.

    Args:
        root: folder of the benchmark.
        media: also read every medium from its first to its last frame.
        timeout_s: longest time for one of them.
        progress: told how many of how many media are read.

    Raises:
        DataError, StorageError: the folder or a file of annotations is absent.
    """
    dataset = open_benchmark(root)
    questions = dataset.read()
    found = dataset.found(questions.items)
    by_split = {(SPLIT, place): at for place, at in found.items()}
    absent = media_problems(list(by_split), by_split, questions.row_of)
    problems = [*questions.problems, *absent]
    broken: dict[Place, Problem] = {}
    if media:
        present = {place: at for place, at in found.items() if at.file.path}
        broken = _look(
            str(dataset.root), present, timeout_s, progress or (lambda done, total: None)
        )
    good = {place for place, at in found.items() if at.file.path} - {
        place for place, problem in broken.items() if problem.kind != "odd_bound"
    }
    usable, there = (
        _counted(questions.items),
        _counted([item for item in questions.items if item.place in good]),
    )
    states = [
        TaskState(
            files.task.name,
            files.task.media_root,
            questions.expected[files.task.name],
            usable[files.task.name],
            there[files.task.name],
        )
        for files in dataset.tasks
    ]
    return Diagnosis(
        str(dataset.root), fingerprint(dataset), states, [*problems, *broken.values()], media
    )


def _counted(items: Sequence[Item]) -> Counter[str]:
    return Counter(item.task for item in items)


def _look(
    root: str, found: dict[Place, Found], timeout_s: float, progress: Progress
) -> dict[Place, Problem]:
    """Return what is wrong with the content of media, by their place."""
    problems: dict[Place, Problem] = {}
    decoder = IsolatedDecoder(timeout_s, pixels=False)
    try:
        for number, (place, at) in enumerate(found.items(), start=1):
            if problem := _content_problem(decoder, root, place, at):
                problems[place] = problem
            progress(number, len(found))
    finally:
        decoder.close()
    return problems


def _content_problem(
    decoder: IsolatedDecoder, root: str, place: Place, at: Found
) -> Problem | None:
    medium = Medium(place.id, join(root, at.file.path), at.kind, place.start, place.end)
    with medium_file(medium) as path:
        probe = decoder.probe(path, at.kind)
    if not probe.num_frames:
        return _problem(probe.outcome, place, probe.problem)
    try:
        frames = numbered(probe.num_frames, probe.fps, medium)
    except VideoError as error:
        return _problem(error.outcome, place, str(error))
    if medium.has_span and not _holds(frames, medium):
        lasts_s = probe.num_frames / frames.fps
        words = f"the bounds do not lie within the clip, which lasts {lasts_s:.2f} s"
        return _problem("odd_bound", place, words)
    return None


def _holds(frames: Numbered, medium: Medium) -> bool:
    """Whether a clip has the bounds of a medium; a frame more or less is a matter of rounding."""
    beyond = medium.end is not None and medium.end * frames.fps > frames.last + 1
    return not beyond and not is_repaired(frames, medium)


def _problem(kind: str, place: Place, words: str) -> Problem:
    detail = f"{place.id}: {words}"
    return Problem(kind=kind, detail=detail, split=SPLIT, video_id=place.id, path=place.path)
