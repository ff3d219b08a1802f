"""Rows of metrics: written first, followed live, forgotten when a resumed stage repeats them."""

import time
from textwrap import dedent

import pytest

from msvqa.engine.tracking import Tracker, following
from msvqa.run import Run
from tests.tiny import make_recipe


def make_run(tmp_path) -> Run:
    return Run.create(make_recipe(tmp_path))


def test_a_resumed_stage_forgets_later_rows_of_its_own_only(tmp_path):
    run = make_run(tmp_path)
    for stage in ("reconstruct", "answer"):
        tracker = Tracker(run, stage, step=0)
        for step in (1, 2, 3):
            tracker.log("train", step, 0, {"loss": float(step)})
        tracker.close()
    Tracker(run, "answer", step=2).close()
    assert [(r["stage"], r["step"]) for r in run.metrics()] == [
        ("reconstruct", 1), ("reconstruct", 2), ("reconstruct", 3), ("answer", 1), ("answer", 2),
    ]  # fmt: skip


def test_time_goes_on_where_a_stopped_stage_left_it(tmp_path):
    run = make_run(tmp_path)
    tracker = Tracker(run, "answer", step=0)
    tracker._before_s = 100.0
    tracker.log("train", 1, 0, {"loss": 1.0})
    tracker.close()
    again = Tracker(run, "answer", step=1)
    again.log("train", 2, 0, {"loss": 1.0})
    again.close()
    assert run.metrics()[-1]["time_s"] >= 100.0


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    run = make_run(tmp_path)
    Tracker(run, "answer", step=0).log("train", 1, 0, {"loss": 1.0})
    with run.metrics_file.open("a") as file:
        file.write('{"stage": "answer", "st')
    assert len(run.metrics()) == 1
    Tracker(run, "answer", step=1).log("train", 2, 0, {"loss": 2.0})
    assert [row["step"] for row in run.metrics()] == [1, 2], "the next row does not join it"


@pytest.mark.long
def test_rows_reach_the_driver_while_they_are_written(tmp_path):
    run = make_run(tmp_path)
    Tracker(run, "answer", step=0).log("train", 1, 0, {"loss": 1.0})
    seen = []
    with following(run, seen.append):
        tracker = Tracker(run, "answer", step=1)
        tracker.log("train", 2, 0, {"loss": 2.0})
        deadline = time.monotonic() + 5
        while not seen and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [row["step"] for row in seen] == [2], "rows from before are not repeated"
        tracker.log("train", 3, 0, {"loss": 3.0})
    assert [row["step"] for row in seen] == [2, 3], "the last rows are not lost at the end"


def test_tensorboard_shows_what_the_metrics_say(tmp_path):
    """Also after a resume, which writes a second file of events and takes back later steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(tmp_path)
    for start, steps in ((0, (2, 4, 6)), (4, (6, 8))):
        tracker = Tracker(run, "answer", step=start)
        for step in steps:
            numbers = {"loss": 1.0 / (step + start), "lr": 1e-3, "questions_per_s": 9.0 + step}
            tracker.log("train", step, 0, numbers | {"steps": 8, "eta_s": 8.0 - step})
        tracker.log("validation", steps[-1], 0, {"accuracy": 0.1 * step})
        tracker.close()
    seen = EventAccumulator(str(run.path / "tensorboard" / "answer"))
    seen.Reload()
    rows = run.metrics()
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 8]
    groups = {"train/loss", "train/lr", "workers/questions_per_s", "validation/accuracy"}
    assert {*seen.Tags()["scalars"]} == groups
    for tag in groups:
        group, name = tag.split("/")
        expected = [
            (row["step"], row[name])
            for row in rows
            if name in row and row["kind"] == ("train" if group == "workers" else group)
        ]
        shown = [(event.step, event.value) for event in seen.Scalars(tag)]
        assert shown == [(step, pytest.approx(value)) for step, value in expected]
    (text,) = seen.Tags()["tensors"]
    shown = seen.Tensors(text)[0].tensor_proto.string_val[0].decode()
    assert dedent(shown) == run.recipe.to_yaml()


def test_tensorboard_may_fail(tmp_path):
    run = make_run(tmp_path)
    (run.path / "tensorboard").write_text("a file where a folder should be")
    tracker = Tracker(run, "answer", step=0)
    tracker.log("train", 1, 0, {"loss": 1.0})
    assert len(run.metrics()) == 1


def test_rows_wait_while_the_file_cannot_be_written(tmp_path, monkeypatch):
    from msvqa.engine import tracking

    run = Run.create(make_recipe(tmp_path))
    tracker = tracking.Tracker(run, "answer", step=0)
    tracker.log("train", 1, 0, {"loss": 1.0})
    with monkeypatch.context() as full:
        full.setattr(tracking, "append_whole", _full)
        tracker.log("train", 2, 0, {"loss": 2.0})
    tracker.log("train", 3, 0, {"loss": 3.0})
    tracker.close()
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]


def _full(path, text):
    raise OSError(28, "No space left on device")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_training_outlives_a_disk_that_is_full_for_tensorboard(tmp_path, caplog):
    run = make_run(tmp_path)
    tracker = Tracker(run, "answer", step=0)
    events = tracker._writer.file_writer.event_writer._ev_writer

    def full(event):
        raise OSError(28, "No space left on device")

    events.write_event = full
    for step in range(1, 40):
        tracker.log("train", step, 0, {"loss": 1.0, "lr": 0.1})
        time.sleep(0.01)
    tracker.close()
    assert [row["step"] for row in run.metrics()] == list(range(1, 40))
    assert caplog.text.count("TensorBoard events cannot be written") == 1


def test_a_row_that_the_caller_cannot_show_is_no_end(tmp_path):
    run = make_run(tmp_path)
    seen = []

    def show(row):
        seen.append(row["step"])
        raise ValueError("no terminal")

    with following(run, show):
        tracker = Tracker(run, "answer", step=0)
        tracker.log("train", 1, 0, {"loss": 1.0})
        tracker.log("train", 2, 0, {"loss": 1.0})
    assert seen == [1, 2]


def test_tensorboard_shows_a_stage_once_that_started_again_before_its_first_checkpoint(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(tmp_path)
    for _ in range(2):
        tracker = Tracker(run, "answer", step=0)
        for step in (10, 20):
            tracker.log("train", step, 0, {"loss": float(step)})
        tracker.close()
    events = EventAccumulator(str(run.path / "tensorboard" / "answer"))
    events.Reload()
    (name,) = [tag for tag in events.Tags()["scalars"] if tag.endswith("loss")]
    assert [event.step for event in events.Scalars(name)] == [10, 20]
