"""Asking a model all questions, one after another; what was asked before is not asked again."""

import hashlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from msvqa.data.annotations import several
from msvqa.data.dataset import open_dataset
from msvqa.data.datasets.mvbench import Item, MVBench
from msvqa.data.medium import Medium
from msvqa.data.placed_media import Found
from msvqa.data.sampling import numbered
from msvqa.data.video import Decoded, IsolatedDecoder, View, medium_file
from msvqa.errors import DataError, VideoError, one_of
from msvqa.mvbench.adapters.adapter import Adapter
from msvqa.mvbench.controls import CONTROLS, controlled
from msvqa.mvbench.likelihood import option_scores
from msvqa.mvbench.matching import MATCHERS, robust
from msvqa.mvbench.prompts import LETTERS, PRESETS, Prompt
from msvqa.mvbench.results import (
    MEDIA_ERROR,
    Header,
    ResultFile,
    Results,
    Row,
    key_of,
    open_results,
)
from msvqa.mvbench.sampling import SAMPLERS, select
from msvqa.recipe import parse_data
from msvqa.storage import join

AHEAD = 2
"""So many clips are decoded while the model is busy with another."""
PREDICTIONS = ("generate", "letters", "options_sum", "options_mean", "options_char")
"""`generate`: what the model says is matched; `letters`: the likeliest letter is taken; `options_`:
the likeliest option, by the sum of its tokens' log-probabilities, per token or per character."""

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Told how many questions of how many are answered."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked, and how."""

    root: str
    out: Path
    preset: str = "official"
    predict: str = "generate"
    sampler: str = "evaluation"
    frames: int = 16
    size_px: int = 448
    """Longer side of a frame; smaller videos are shown as they are."""
    control: str = "none"
    circular: bool = False
    """Whether each question is asked with its options in every rotation."""
    part: tuple[int, int] = (1, 1)
    """Which of how many equal parts of the questions."""
    timeout_s: float = 60.0
    """Longest time for decoding one clip."""

    def __post_init__(self) -> None:
        for name, known in (
            ("preset", PRESETS),
            ("predict", PREDICTIONS),
            ("sampler", SAMPLERS),
            ("control", CONTROLS),
        ):
            if getattr(self, name) not in known:
                found = getattr(self, name)
                raise DataError(f"no {name} {found!r}; there are {one_of(known)}")
        number, count = self.part
        if not 1 <= number <= count:
            raise DataError(f"part {number}/{count}: the first part is 1, the last {count}")


@dataclass(frozen=True)
class Ask:
    """One question as it is put to the model."""

    item: Item
    medium: Medium
    rotation: int
    key: str

    @property
    def options(self) -> tuple[str, ...]:
        """The options in the order in which they are shown."""
        return (
            *self.item.candidates[self.rotation :],
            *self.item.candidates[: self.rotation],
        )

    @property
    def gold(self) -> str:
        """The letter of the right option."""
        return LETTERS[(self.item.answer - self.rotation) % len(self.item.candidates)]


def open_benchmark(root: str) -> MVBench:
    """Return the files of MVBench below a folder.

    Raises:
        DataError, StorageError: it is absent.
    """
    dataset = open_dataset(parse_data("mvbench", [], root=root))
    assert isinstance(dataset, MVBench)
    return dataset


def fingerprint(dataset: MVBench) -> str:
    """Return what is the same for the same annotation files, whatever folder they are in."""
    hashes = [f"{name}:{digest}" for name, digest in sorted(dataset.fingerprint().items())]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]


def header_of(dataset: MVBench, expected: dict[str, int], adapter: Adapter, plan: Plan) -> Header:
    """Return what a result of this model and plan depends on."""
    begun = "no" if not PRESETS[plan.preset]("", [""]).prefill else "in the user's turn"
    settings = {
        "model": adapter.name,
        "adapter": type(adapter).__name__,
        "preset": plan.preset,
        "answer_begun": "yes" if adapter.supports_prefill and begun != "no" else begun,
        "predict": plan.predict,
        "sampler": plan.sampler,
        "frames": plan.frames,
        "size_px": plan.size_px,
        "control": plan.control,
        "circular": plan.circular,
        "max_new_tokens": adapter.source.max_new_tokens,
    }
    return Header(
        settings=settings,
        annotations=fingerprint(dataset),
        media=str(dataset.root),
        expected=expected,
    )


def run(adapter: Adapter, plan: Plan, progress: Progress | None = None) -> Results:
    """Ask all questions whose media are there and that have no answer yet; return all answers.

    Raises:
        DataError, StorageError: the data cannot be read.
        RunError: the file holds answers of other settings.
        ServerError: the model does not answer.
    """
    dataset = open_benchmark(plan.root)
    questions = dataset.read()
    if questions.problems:
        said = several(questions.problems)
        logger.warning("%d problems of the annotations:\n%s", len(questions.problems), said)
    header = header_of(dataset, questions.expected, adapter, plan)
    asks, absent = _asks(dataset, questions.items, header, plan)
    if absent:
        counts = ", ".join(f"{task} {n}" for task, n in absent.items())
        logger.warning("media are absent, and their questions are not asked: %s", counts)
    with open_results(plan.out, header) as file:
        _ask_all(adapter, asks, plan, file, progress or (lambda done, total: None))
        return Results(header, file.rows)


def view_of(sampler: str, frames: int, size_px: int) -> View:
    """Return what is seen of a clip: whole frames, the longer side at most so many pixels."""
    choose = partial(select, sampler=sampler, count=frames)
    return View(select=choose, size_px=size_px, fit="whole")


def medium_of(dataset: MVBench, item: Item, found: Found) -> Medium:
    """Return the medium of an item, where its file is there."""
    path = join(str(dataset.root), found.file.path)
    return Medium(item.place.id, path, found.kind, item.place.start, item.place.end)


def _asks(
    dataset: MVBench, items: Sequence[Item], header: Header, plan: Plan
) -> tuple[list[Ask], Counter[str]]:
    """Return what this part asks, and how many questions of each task lack their medium."""
    found = dataset.found(items)
    asks: list[Ask] = []
    absent: Counter[str] = Counter()
    number, count = plan.part
    for place, item in enumerate(items):
        at = found[item.place]
        if not at.file.path:
            absent[item.task] += 1
        elif place % count == number - 1:
            medium = medium_of(dataset, item, at)
            rotations = len(item.candidates) if plan.circular else 1
            asks += [_asked(item, medium, rotation, header) for rotation in range(rotations)]
    return asks, absent


def _asked(item: Item, medium: Medium, rotation: int, header: Header) -> Ask:
    content = {
        "task": item.task,
        "index": item.index,
        "video": item.place.id,
        "question": item.question,
        "candidates": item.candidates,
        "answer": item.answer,
        "rotation": rotation,
    }
    return Ask(item, medium, rotation, key_of(header, content))


def _ask_all(
    adapter: Adapter, asks: Sequence[Ask], plan: Plan, file: ResultFile, progress: Progress
) -> None:
    todo = [ask for ask in asks if ask.key not in file.rows]
    done = len(asks) - len(todo)
    progress(done, len(asks))
    decoder = IsolatedDecoder(plan.timeout_s)
    view = view_of(plan.sampler, plan.frames, plan.size_px)
    try:
        for ask, clip in _ahead(todo, lambda ask: _clip(decoder, ask.medium, view)):
            file.append(_answered(adapter, ask, clip, plan))
            done += 1
            progress(done, len(asks))
    finally:
        decoder.close()


def _ahead(
    asks: Iterable[Ask], decode: Callable[[Ask], Decoded | VideoError]
) -> Iterator[tuple[Ask, Decoded | VideoError]]:
    """Yield questions with their clips, some of which are decoded beforehand."""
    todo = iter(asks)
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = deque((ask, pool.submit(decode, ask)) for ask in islice(todo, AHEAD))
        try:
            while waiting:
                ask, clip = waiting.popleft()
                waiting.extend((more, pool.submit(decode, more)) for more in islice(todo, 1))
                yield ask, clip.result()
        finally:
            for _, clip in waiting:
                clip.cancel()


def _clip(decoder: IsolatedDecoder, medium: Medium, view: View) -> Decoded | VideoError:
    try:
        with medium_file(medium) as path:
            return decoder.look(path, medium, view)
    except VideoError as error:
        return error


def _answered(adapter: Adapter, ask: Ask, clip: Decoded | VideoError, plan: Plan) -> Row:
    row = Row(
        key=ask.key,
        task=ask.item.task,
        index=ask.item.index,
        rotation=ask.rotation,
        video=ask.item.place.id,
        question=ask.item.question,
        options=ask.options,
        gold=ask.gold,
    )
    if isinstance(clip, VideoError):
        return replace(row, reason=MEDIA_ERROR, error=str(clip))
    ((_, frames),) = clip.frames.items()
    shown = controlled(frames, plan.control, row.video)
    prompt = PRESETS[plan.preset](ask.item.question, ask.options)
    span = _span(ask, clip, plan)
    prompt = replace(prompt, seconds=span.seconds)
    if not adapter.supports_prefill:
        prompt = prompt.without_prefill()
    if plan.predict == "generate":
        said = _text(adapter, shown, prompt)
    else:
        said = _likeliest(_logits(adapter, shown, prompt, row, plan.predict), row)
    match = robust(said["scored"], row.options)
    verdicts = {
        name: matcher.verdict(matcher.text(said["scored"]), row.options, row.gold)
        for name, matcher in MATCHERS.items()
    }
    return replace(
        row, **said, letter=match.letter, reason="" if match.letter else match.reason,
        verdicts=verdicts, repaired=span.is_repaired,
    )  # fmt: skip


@dataclass(frozen=True)
class Span:
    """What of a clip is seen."""

    seconds: float
    """0 where nobody knows."""
    is_repaired: bool = False
    """Whether bounds had to be moved into the clip."""


def _span(ask: Ask, clip: Decoded, plan: Plan) -> Span:
    # Samplers other than that of the evaluation see all of a clip.
    has_bounds = plan.sampler == "evaluation" and ask.medium.has_span
    medium = ask.medium if has_bounds else replace(ask.medium, start=None, end=None)
    frames = numbered(clip.num_frames, clip.probe.fps, medium)
    bounds = frames.span(medium.start, medium.end)
    first, last = frames.repaired(*bounds)
    seconds = (last - first + 1) / frames.fps if frames.fps > 0 else 0.0
    return Span(seconds, (first, last) != bounds)


def _text(adapter: Adapter, frames: np.ndarray, prompt: Prompt) -> dict[str, Any]:
    text = adapter.generate(frames, prompt)
    return {"text": text, "scored": f"{_bracket(prompt)}{text}"}


def _bracket(prompt: Prompt) -> str:
    """Return the bracket that an answer was begun with, where it was."""
    return "(" if prompt.prefill.endswith("(") else ""


def _logits(
    adapter: Adapter, frames: np.ndarray, prompt: Prompt, row: Row, predict: str
) -> np.ndarray:
    """Return how likely the model finds each option, (n,)."""
    letters = LETTERS[: len(row.options)]
    if predict == "letters":
        found = np.asarray(adapter.letter_logits(frames, prompt, letters), dtype=np.float64)
        if found.shape != (len(letters),):
            raise DataError(f"{adapter.name}: {len(letters)} logits are needed, got {found.shape}")
        return found
    labelled = [f"({letter}) {text}" for letter, text in zip(letters, row.options, strict=True)]
    texts = [text.removeprefix(_bracket(prompt)) for text in labelled]
    tokens = adapter.text_logprobs(frames, prompt, texts)
    padded = np.full((1, len(tokens), max(map(len, tokens))), np.nan)  # (1, n, T)
    for number, of_text in enumerate(tokens):
        padded[0, number, : len(of_text)] = of_text
    scores = option_scores(padded, np.array([len(texts)]), np.array([[*map(len, texts)]]))
    of_options: np.ndarray = scores[predict.removeprefix("options_")][0]
    return of_options


def _likeliest(logits: np.ndarray, row: Row) -> dict[str, Any]:
    letters = LETTERS[: len(row.options)]
    known = dict(zip(letters, logits.tolist(), strict=True))
    if np.isnan(logits).any() or np.isneginf(logits).all():
        return {"scored": "", "logits": known}
    # The letter alone: the text of an option may look like other letters.
    return {"scored": f"({letters[int(logits.argmax())]})", "logits": known}
