"""The page of a run: complete, alone, the same every time, and honest about what is absent."""

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import store_location
from msvqa.engine.checkpoint import load_checkpoint
from msvqa.engine.inputs import open_inputs
from msvqa.engine.loop import train_stage
from msvqa.engine.pace import ExtractionPace, keep_pace
from msvqa.engine.prediction import objective_of, predict_split
from msvqa.errors import RunError
from msvqa.evaluate import Asked, record
from msvqa.page.answers import choose_examples, common_mistakes
from msvqa.page.curves import MAX_POINTS, stage_panels, thin
from msvqa.page.figures import Line, Panel, TypeAccuracy, draw_panel, draw_types
from msvqa.page.pictures import spread, strip
from msvqa.recipe import Recipe
from msvqa.report import report
from msvqa.run import Run
from tests.local_host import LocalHost
from tests.tiny import make_data, make_job, make_recipe

pytestmark = pytest.mark.long

ATTACK = '<script>alert("hi")</script> & $x_{'


class Page(HTMLParser):
    """Tags, addresses and visible text of a page."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.html = Path(path).read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "action", "data", "poster", "srcset")
        self.addresses += [value for name, value in attributes if name in names]

    def handle_data(self, data):
        self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def train(recipe: Recipe, stage: int) -> Run:
    run, job = make_job(recipe, stage)
    train_stage(job, LocalHost(run.stage_dir(recipe.stages[stage].name)))
    return run


def evaluate(run: Run, split: str) -> None:
    prepared = Prepared.open(str(run.recipe.data.prepared))
    inputs = open_inputs(run.recipe, prepared, str(store_location(run.recipe)), split)
    checkpoint = run.checkpoint()
    objective = objective_of(load_checkpoint(checkpoint))
    rows = predict_split(objective, inputs, 8)
    order = np.argsort(rows["row"])
    predictions = {name: values[order] for name, values in rows.items()}
    asked = Asked.of(run, [], split, None)
    record(asked, checkpoint, prepared, inputs.split, predictions)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """A trained and evaluated run whose data lie beside it."""
    folder = tmp_path_factory.mktemp("report")
    make_data(folder)
    recipe = make_recipe(folder)
    train(recipe, 0)
    run = train(recipe, 1)
    evaluate(run, "val")
    evaluate(run, "test")
    return run


def copied(run: Run, folder: Path) -> Run:
    """Return a copy of the run with its data, so that parts of it can be taken away."""
    origin = run.path.parents[1]
    for part in ("data", "p", "runs"):
        shutil.copytree(origin / part, folder / part)
    copy = Run(folder / "runs" / run.path.name, make_recipe(folder))
    (copy.path / "recipe.yaml").write_text(copy.recipe.to_yaml(), encoding="utf-8")
    prepared = folder / "p" / "prepare.json"
    info = json.loads(prepared.read_text(encoding="utf-8"))
    prepared.write_text(json.dumps(info | {"root": str(folder / "data")}), encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def page(whole) -> Page:
    """The page of the whole run."""
    return Page(report(whole.path))


@pytest.fixture
def without_curves(monkeypatch):
    """Leave out the figures, which take most of the time."""
    monkeypatch.setattr("msvqa.report.draw_panel", lambda panel: "")


def test_the_page_shows_every_part(whole, page):
    metrics, table = whole.evaluation("test")
    assert f"{100 * metrics['accuracy']:.1f}\N{NO-BREAK SPACE}%" in page.text
    assert f"{metrics['n']} of {metrics['n_expected']} questions" in page.words
    for words in (
        *("Accuracy on test", "Accuracy on val", "question-only baseline", "95 % interval"),
        *("Stage reconstruct", "Stage answer", "Squared error, validation", "Learning rate"),
        *("Waiting for data", "appearance decoder", "motion decoder", "Accuracy per question type"),
        *("What was wrong most often", "0 videos are missing", "0 videos were rejected"),
        *("The whole recipe", "frames_per_clip: 4", "peak memory", " GB"),
        *("TFLOP/s a worker", "share of peak", "limited by"),
    ):
        assert words in page.words, words
    assert set(table["type"].to_pylist()) <= set(page.words.split())
    assert page.html.count("data:image/jpeg") >= 3 * 3 + 6
    assert page.tags.count("svg") >= 10
    assert page.html.count("★") >= 2, "the best checkpoint of both stages"


def test_the_page_needs_nothing_from_elsewhere(page):
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert all(a.startswith(("data:image/", "#")) for a in page.addresses)
    assert not re.search(r"url\((?!#)|@import", page.html)
    assert "default-src 'none'" in page.html
    assert len(page.html) < 2_000_000


def test_the_page_is_the_same_every_time_but_for_the_time(whole, page):
    again = Page(report(whole.path))
    first, second = (re.sub(r"<time.*?</time>", "", p.html) for p in (page, again))
    assert first == second


def test_texts_of_users_are_only_text(whole, tmp_path, without_curves):
    run = copied(whole, tmp_path)
    metrics, table = run.evaluation("test")
    rows = table.to_pylist()
    for row in rows:
        row |= {"question": ATTACK, "answer": ATTACK, "type": ATTACK, "predicted": ATTACK + "2"}
        row["top"] = [ATTACK] * len(row["top"])
    folder = run.evaluation_dir("test")
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "predictions.parquet")
    metrics["per_type"] = {ATTACK: next(iter(metrics["per_type"].values()))}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    page = Page(report(run.path))
    assert "script" not in page.tags and "<script" not in page.html
    assert html.escape(ATTACK, quote=False)[:8] in page.html
    assert ATTACK in page.text


def test_a_run_before_its_first_step_has_a_page(tmp_path):
    run = Run.create(make_recipe(tmp_path))
    page = Page(report(run.path))
    assert "No split has been evaluated yet" in page.words
    assert "Nothing has been logged for this stage yet" in page.words
    assert "has no checkpoint yet" in page.words
    assert "is absent or incomplete: it has no prepare.json" in page.words


def test_a_run_of_the_first_stage_alone_has_its_reconstructions(whole, tmp_path, without_curves):
    run = copied(whole, tmp_path)
    shutil.rmtree(run.path / "evaluate")
    shutil.rmtree(run.stage_dir("answer"))
    rows = run.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
    run.metrics_file.write_text("".join(row for row in rows if '"reconstruct"' in row))
    page = Page(report(run.path))
    assert "No split has been evaluated yet" in page.words
    assert "Stage answer Nothing has been logged" in page.words
    assert page.html.count("data:image/jpeg") == 9


def test_frames_come_from_the_files_where_the_store_is_gone(whole, page, tmp_path, without_curves):
    run = copied(whole, tmp_path)
    shutil.rmtree(store_location(run.recipe))
    decoded = Page(report(run.path))
    frames = [[a for a in p.addresses if a.startswith("data:")] for p in (page, decoded)]
    assert frames[0] == frames[1]
    assert "is absent or incomplete: it has no store.json" in decoded.words


def test_the_speed_of_a_stage_and_of_the_extraction_are_shown(whole, tmp_path, without_curves):
    run = copied(whole, tmp_path)
    assert "driver idle" not in Page(report(run.path)).words, "the store does not say"
    rows = run.metrics()
    for row in rows:
        row |= {"waiting": 0.125, "share_of_peak": 0.375, "tflops": 0.0625, "workers": 3}
    run.write_metrics(rows)
    spent = {"reading": 1.0, "decoding": 13.0, "computing": 0.0, "writing": 2.0}
    pace = ExtractionPace(
        media=12, workers=4, starting_s=2.5, wall_s=8.0, spent_s=spent, driver_idle=0.875,
        ended_at="",
    )  # fmt: skip
    keep_pace(str(store_location(run.recipe)), pace)
    words = " ".join(re.sub(r"<[^>]+>", " ", Page(report(run.path)).html).split())
    assert re.search(r"answer 3 \S+ 12\.5 % \S+ GB 0\.0625 37\.5 % data", words)
    assert "decoders idle" not in words, "nobody decodes while training runs"
    assert "12 4 1.5 2.5 s 8.0 s 3.1 % 40.6 % 0.0 % 6.2 % 50.0 % 87.5 % decoding" in words


def test_idle_decoders_of_a_stage_are_shown(whole, tmp_path, without_curves):
    run = copied(whole, tmp_path)
    rows = run.metrics()
    for row in rows:
        row |= {"decoders_idle": 0.4375} if row["stage"] == "answer" else {}
    run.write_metrics(rows)
    words = " ".join(re.sub(r"<[^>]+>", " ", Page(report(run.path)).html).split())
    assert "waiting for data decoders idle peak memory" in words
    assert re.search(r"answer \S+ \S+ \S+ % 43\.8 % \S+ GB", words)
    assert re.search(r"reconstruct \S+ \S+ \S+ % \S \S+ GB", words)


def test_absent_videos_are_named(whole, tmp_path, without_curves):
    run = copied(whole, tmp_path)
    shutil.rmtree(store_location(run.recipe))
    for video in (tmp_path / "data").rglob("*.avi"):
        video.write_bytes(b"no video")
    page = Page(report(run.path))
    assert "No frames: " in page.words and "No reconstructions: " in page.words
    shutil.rmtree(tmp_path / "p")
    page = Page(report(run.path))
    assert "No frames: the video is no longer there" in page.words
    assert "Accuracy on test" in page.words


def test_damaged_predictions_and_checkpoints_are_named(whole, tmp_path, without_curves):
    run = copied(whole, tmp_path)
    (run.evaluation_dir("test") / "predictions.parquet").write_bytes(b"damaged")
    weights = run.checkpoint("reconstruct") / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    page = Page(report(run.path))
    assert "The predictions cannot be read" in page.words
    assert "weights.safetensors is damaged" in page.words


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"is not a run: it has no recipe\.yaml"):
        report(tmp_path)


def example_rows(count: int) -> list[dict]:
    return [
        {
            "question_id": number,
            "video_id": str(number // 4),
            "type": ("what", "who")[number % 2],
            "answer": "cat",
            "predicted": "cat" if number % 3 else f"dog{number % 2}",
            "correct": bool(number % 3),
        }
        for number in range(count)
    ]


def test_examples_take_types_in_turn_and_each_video_once():
    rows = example_rows(80)
    chosen = choose_examples(rows, right=False, count=6)
    assert [row["type"] for row in chosen].count("what") == 3
    assert len({row["video_id"] for row in chosen}) == 6
    assert not any(row["correct"] for row in chosen)
    assert chosen == choose_examples(rows[::-1], right=False, count=6)
    few = choose_examples(rows[:8], right=True, count=6)
    assert len({row["question_id"] for row in few}) == 5, "all there are, of two videos"


def test_mistakes_are_counted_per_type():
    found = common_mistakes(example_rows(12))
    assert {
        kind: [(m.answer, m.predicted, m.count, m.asked) for m in found[kind]] for kind in found
    }
    assert [(m.answer, m.predicted, m.count, m.asked) for m in found["what"]] == [
        ("cat", "dog0", 2, 6)
    ]
    assert found["who"][0].predicted == "dog1"


def test_curves_leave_out_what_is_not_finite_and_stay_short():
    rows = [
        {"stage": "s", "kind": "train", "step": n, "epoch": 0, "time_s": 1.0, "loss": loss}
        for n, loss in enumerate([1.0, float("nan"), 3.0, float("inf")])
    ]
    (panel,) = stage_panels(rows, "accuracy", None)
    assert list(panel.lines[0].y) == [1.0, 3.0]
    x, y = thin(list(range(10_000)), [1.0] * 10_000)
    assert len(x) == len(y) <= MAX_POINTS and set(y) == {1.0}
    assert thin([], []) == ([], [])


def test_the_best_checkpoint_is_marked_on_the_monitored_metric():
    rows = [
        {"stage": "s", "kind": "validation", "step": n, "epoch": n, "time_s": 1.0, "mse": 3.0 - n}
        for n in (1, 2)
    ]
    (panel,) = stage_panels(rows, "mse", 2)
    assert panel.best == (2.0, 1.0)


def test_what_is_measured_alike_is_in_one_panel():
    names = ["a_to_b_recall_at_1", "a_to_b_recall_at_10", "a_to_b_median_rank", "a_to_b_mean_rank"]
    row = {"stage": "s", "kind": "validation", "step": 1, "epoch": 0, "time_s": 1.0}
    panels = stage_panels([row | dict.fromkeys(names, 0.5)], names[0], 1)
    assert [panel.title for panel in panels] == [
        "A to b recall, validation",
        "A to b rank, validation",
    ]
    assert [line.label for line in panels[0].lines] == ["at 1", "at 10"]
    assert [line.label for line in panels[1].lines] == ["median rank", "mean rank"]


def test_labels_may_hold_any_character():
    line = Line("a $ < &", [1, 2], [1.0, 2.0])
    drawing = draw_panel(Panel(title='"<b>"', lines=[line, line]))
    assert "a $ &lt; &amp;" in drawing and "&lt;b&gt;" in drawing and "<b>" not in drawing
    row = TypeAccuracy(kind="$<", n=1, accuracy=0.5, low=None, high=None, question_only=None)
    assert "$&lt;" in draw_types([row])
    assert draw_types([])


def test_strips_hold_frames_from_first_to_last():
    clips = np.zeros((2, 4, 10, 12, 3), np.uint8)
    clips[1, 3] = 255
    frames = spread(clips, 3)
    assert frames.shape == (3, 10, 12, 3) and frames[-1].min() == 255 and frames[0].max() == 0
    assert strip(frames).width == 3 * 12 + 2 * 2
    assert strip(np.zeros((2, 400, 800, 3), np.uint8)).height == 80
