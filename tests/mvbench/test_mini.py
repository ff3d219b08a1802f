"""The drawn benchmark: equal for equal seeds, and its answers are what the pictures show."""

import json
from collections import Counter

import numpy as np
import pytest

from msvqa.errors import DataError
from msvqa.mvbench.doctor import doctor
from msvqa.mvbench.drawing import pictures
from msvqa.mvbench.mini import make_mini
from msvqa.mvbench.run import fingerprint, open_benchmark
from msvqa.mvbench.scenes import COLORS, GREY, TINT, described, draw
from msvqa.mvbench.tasks import BY_NAME, TASKS

pytestmark = pytest.mark.long

ITEMS = 12


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_mini(tmp_path_factory.mktemp("mini") / "root", items=ITEMS)


@pytest.fixture(scope="module")
def shown(root):
    """For each task its items with the frames that are drawn for them, (T, H, W, 3)."""
    manifest = json.loads((root / "manifest.json").read_text())
    described = {medium["path"]: medium for medium in manifest["media"]}
    found = {}
    for item in open_benchmark(str(root)).read().items:
        frames = np.stack(list(pictures(described[item.place.path], manifest["frame_size"])))
        found.setdefault(item.task, []).append((item, frames))
    return found


def answer(item):
    return item.candidates[item.answer]


def color_at(frame):
    """Return the name of the colour that is not the background, or of the whole picture."""
    colors = np.unique(frame.reshape(-1, 3), axis=0)
    names = [name_of(color) for color in colors.tolist() if tuple(color) != GREY]
    assert len(names) <= 1
    return names[0] if names else ""


def name_of(color):
    (name,) = [n for n, rgb in COLORS.items() if np.abs(np.subtract(rgb, color)).max() <= TINT]
    return name


def centre(frame):
    y, x = np.nonzero((frame != GREY).any(axis=-1))
    return (x.mean(), y.mean()) if len(x) else (np.nan, np.nan)


def direction(frames):
    """Return where a single square goes."""
    (x0, y0), (x1, y1) = centre(frames[0]), centre(frames[-1])
    horizontal, vertical = x1 - x0, y1 - y0
    if abs(horizontal) > abs(vertical):
        return "Left." if horizontal < 0 else "Right."
    return "Up." if vertical < 0 else "Down."


def flashes(frames):
    there = np.array([bool(color_at(frame)) for frame in frames])
    return str(int((there[1:] & ~there[:-1]).sum()))


def scene(frames):
    return f"From {color_at(frames[0])} to {color_at(frames[-1])}."


def order(frames):
    colors = {tuple(color) for color in frames.reshape(-1, 3).tolist()} - {GREY}
    appear = sorted(
        (int(np.argmax((frames == color).all(axis=-1).any(axis=(1, 2)))), name_of(color))
        for color in colors
    )
    (a, one), (b, two) = appear
    return "Both at once" if a == b else f"{one}, {two}"


def place_at_end(frames):
    x, _ = centre(frames[-1])
    return {0: "On the left.", 1: "In the middle.", 2: "On the right."}[int(x // 22)]


SEEN = {
    "Moving Direction": direction,
    "Action Count": flashes,
    "Scene Transition": scene,
    "Character Order": order,
    "Object Shuffle": place_at_end,
}
"""What pictures show, found without what they were drawn by."""


@pytest.mark.parametrize("task", SEEN)
def test_answers_are_what_the_pictures_show(shown, task):
    assert [answer(item) for item, _ in shown[task]] == [SEEN[task](f) for _, f in shown[task]]


@pytest.mark.parametrize("task", ["Moving Direction", "Scene Transition"])
def test_played_backwards_tasks_of_order_have_another_answer(shown, task):
    assert not any(answer(item) == SEEN[task](frames[::-1]) for item, frames in shown[task])


@pytest.mark.parametrize(
    ("task", "position"), [("Action Sequence", -1), ("Object Interaction", -1)]
)
def test_answers_about_a_span_lie_in_the_span(shown, task, position):
    for item, frames in shown[task]:
        first, last = int(item.place.start * 8), min(int(item.place.end * 8), 23)
        assert answer(item) == f"{color_at(frames[first : last + 1][position]).capitalize()}."


def test_the_folder_of_frames_is_asked_about_in_its_span(shown):
    for item, frames in shown["Episodic Reasoning"]:
        numbers = range(round(item.place.start * 3), round(item.place.end * 3) + 1)
        assert {f"{color_at(frames[n - 1]).capitalize()}." for n in numbers} == {answer(item)}


def test_answers_are_drawn_evenly_over_what_can_be_right(shown):
    for task, count in (("Moving Direction", 4), ("Action Count", 3), ("State Change", 2)):
        counts = Counter(answer(item) for item, _ in shown[task])
        assert set(counts.values()) == {ITEMS // count}, task


def test_captions_say_what_is_drawn():
    for drawn in draw(BY_NAME["Moving Direction"], 0, 8):
        assert f"moves {drawn.answer.lower().removesuffix('.')} fast at the" in described(drawn)
    for drawn in draw(BY_NAME["Scene Transition"], 0, 8):
        _, one, _, two = drawn.answer.removesuffix(".").split()
        assert described(drawn) == f"The screen is {one}, then {two}."
    for drawn in draw(
        BY_NAME["Object Interaction"], 0, 8
    ):  # the square before the span is not told
        said = described(drawn)
        assert said.startswith(f"A {drawn.answer.lower().removesuffix('.')} square stays at the")
        assert said.endswith("from the middle to the end.")
        assert said.count("square") == 1


def test_it_is_whole_and_has_names_in_common_between_folders(root):
    diagnosis = doctor(str(root), media=True)
    assert diagnosis.problems == []
    assert (diagnosis.coverage, diagnosis.is_published_size) == (1, False)
    assert [task.present for task in diagnosis.tasks] == [ITEMS] * 20
    assert len({task.folder for task in diagnosis.tasks}) < len(TASKS)
    one, other = (root / "video" / name / "video_0001.mp4" for name in ("shared", "shared_too"))
    assert one.read_bytes() != other.read_bytes()


def test_a_seed_gives_the_same_files_and_another_gives_others(tmp_path):
    roots = [make_mini(tmp_path / str(n), items=1, seed=seed) for n, seed in enumerate((3, 3, 4))]
    files = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in roots
    ]
    assert files[0] == files[1]
    assert files[0] != files[2]
    prints = [fingerprint(open_benchmark(str(root))) for root in roots]
    assert prints[0] == prints[1] != prints[2]


def test_options_keep_their_order_where_that_is_wanted(tmp_path):
    root = make_mini(tmp_path / "fixed", items=6, order="fixed")
    items = open_benchmark(str(root)).read().items
    shown = {(item.task, item.candidates) for item in items}
    assert len(shown) == len(TASKS)  # a letter always means the same
    assert ("Moving Direction", ("Left.", "Right.", "Up.", "Down.")) in shown
    with pytest.raises(DataError, match="is not empty"):
        make_mini(root)
    with pytest.raises(DataError, match="at least 1"):
        make_mini(tmp_path / "other", items=0)
    with pytest.raises(DataError, match="no order of options 'random'"):
        make_mini(tmp_path / "other", order="random")
