"""The doctor names what is wrong and survives what it looks at."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from msvqa.checks.report import Check, Report
from msvqa.checks.videos import probe_media
from msvqa.data.isolation import Isolated
from msvqa.doctor import doctor
from msvqa.errors import DataError, StorageError
from tests import barcode_video, featured
from tests.tiny import make_recipe


def statuses(report):
    return {check.name: check.status for check in report.checks}


def expected_outcomes(readme: Path):
    """Read the outcome of every clip from the table of its README."""
    words = {"ok": "ok", "partial": "partial", '"unreadable"': "unreadable"}
    words |= {'"no video stream"': "no_video_stream", "frame i": "ok", "all four": "ok"}
    outcomes = {}
    for line in readme.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if re.match(r"\d\d_", cells[0]):
            said = cells[-1].removeprefix("error ")
            outcomes[cells[0]] = next(o for start, o in words.items() if said.startswith(start))
    return outcomes


@pytest.mark.long
def test_every_clip_gets_the_outcome_that_is_documented(clips, tmp_path):
    report = doctor(data=clips)
    expected = expected_outcomes(clips / "README.md")
    assert len(expected) == 22
    assert {name: found.outcome for name, found in report.probes.items()} == expected
    assert report.failed
    assert statuses(report)["videos"] == "fail"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A whole video of twelve frames."""
    return barcode_video.write(tmp_path_factory.mktemp("clip") / "clip.avi", 12)


def test_problems_are_written_by_name(clip, tmp_path):
    whole, folder = clip.read_bytes(), tmp_path / "data"
    folder.mkdir()
    for name, content in {
        "truncated.avi": whole[: len(whole) * 6 // 10],
        "empty.avi": b"",
        "whole.avi": whole,
        "notes.txt": b"no video",
    }.items():
        (folder / name).write_bytes(content)
    report = doctor(data=tmp_path / "data")
    report.write_problems(tmp_path / "problems.parquet")
    rows = pq.read_table(tmp_path / "problems.parquet").to_pylist()
    assert {row["path"]: row["kind"] for row in rows} == {
        "truncated.avi": "partial",
        "empty.avi": "unreadable",
    }
    details = {row["path"]: row["detail"] for row in rows}
    assert "truncated" in details["truncated.avi"]
    assert re.search(r"\(\d frames\)", details["truncated.avi"])
    assert "the file is empty" in details["empty.avi"]
    assert report.problems_by_kind() == {
        "partial": ["truncated.avi"],
        "unreadable": ["empty.avi"],
    }


@pytest.fixture
def videos(clip, tmp_path):
    for name in ("a.avi", "b.avi", "c.avi"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    return tmp_path


def hang(path):
    time.sleep(60)


def die(path):
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.long
@pytest.mark.parametrize(("trouble", "outcome"), [(hang, "timeout"), (die, "unreadable")])
def test_a_decoder_that_hangs_or_dies_costs_one_file(videos, monkeypatch, trouble, outcome):
    real_call = Isolated.call

    def call(self, function, path, kind):
        if path.name == "b.avi":
            return real_call(self, trouble, path)
        return real_call(self, function, path, kind)

    monkeypatch.setattr(Isolated, "call", call)
    start = time.monotonic()
    found = probe_media(videos, dict.fromkeys(["a.avi", "b.avi", "c.avi"], "video"), timeout_s=3.0)
    assert [probe.outcome for probe in found.values()] == ["ok", outcome, "ok"]
    assert time.monotonic() - start < 30


def write_msvd(folder, videos):
    (folder / "video").mkdir(parents=True)
    for split, rows in {
        "train": [("cat", 0, "what runs?", 1), ("dog", 1, "what sits?", 2), ("", 2, "who?", 1)],
        "val": [("cat", 3, "what runs?", 1)],
        "test": [("cat", 4, "what runs?", 9)],
    }.items():
        keys = ("answer", "id", "question", "video_id")
        content = [dict(zip(keys, row, strict=True)) for row in rows]
        (folder / f"{split}_qa.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "youtube_mapping.txt").write_text("one vid1\ntwo vid2", encoding="utf-8")
    for name, source in videos.items():
        (folder / "video" / name).write_bytes(source.read_bytes())


def test_a_known_layout_gets_its_annotations_checked_too(clip, tmp_path):
    write_msvd(tmp_path / "data", {"one.avi": clip})
    report = doctor(data=tmp_path / "data")
    kinds = report.problems_by_kind()
    assert set(kinds) == {"empty_text", "missing_video", "two_splits", "unknown_video"}
    assert kinds["empty_text"] == ["train_qa.json row 2"]
    assert statuses(report)["annotations"] == "fail"
    assert statuses(report)["videos"] == "ok"
    assert list(report.probes) == ["video/one.avi"]


def test_broken_annotations_are_one_problem(tmp_path):
    write_msvd(tmp_path / "data", {})
    (tmp_path / "data" / "train_qa.json").write_text("[{", encoding="utf-8")
    report = doctor(data=tmp_path / "data")
    assert list(report.problems_by_kind()) == ["invalid_source"]
    assert report.failed


def test_annotations_without_videos_are_a_warning_beside_the_missing_list(tmp_path):
    write_msvd(tmp_path / "data", {})
    report = doctor(data=tmp_path / "data")
    assert statuses(report)["videos"] == "warn"
    missing = report.problems_by_kind()["missing_video"]
    assert set(missing) == {"video/one.avi", "video/two.avi"}


def test_a_table_of_problems_that_cannot_be_written_is_an_error(clip, tmp_path):
    shutil.copy(clip, tmp_path / "a.avi")
    with pytest.raises(DataError, match=r"cannot be written \(No such file .*--out$"):
        doctor(data=tmp_path).write_problems(tmp_path / "absent" / "problems.parquet")


def test_an_absent_or_empty_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        doctor(data=tmp_path / "absent")
    with pytest.raises(DataError, match="no videos"):
        doctor(data=tmp_path)


def test_the_environment_is_checked_without_data():
    report = doctor()
    names = {"python", "torch", "ray", "decoders", "CPUs", "memory", "/dev/shm", "disk", "writing"}
    names |= {"start of Ray"}
    assert set(statuses(report)) == names
    assert not report.failed
    assert report.problems_file is None


def test_a_bad_recipe_fails_with_all_its_problems(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("name: a\nmodel: {name: nothing}\n", encoding="utf-8")
    report = doctor(file)
    recipe = next(check for check in report.checks if check.name == "recipe")
    assert recipe.status == "fail"
    assert "model.name: unknown model" in recipe.detail
    assert "stages: is missing" in recipe.detail


def test_a_recipe_is_checked_with_what_is_changed_in_it(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(make_recipe(tmp_path).to_yaml(), encoding="utf-8")
    assert statuses(doctor(file))["recipe"] == "ok"
    assert statuses(doctor(file, overrides=["model.heads=3"]))["recipe"] == "fail"


def test_a_report_fails_only_on_failures():
    warned = Report([Check(name="a", status="warn", detail="")])
    assert not warned.failed
    assert Report([*warned.checks, Check(name="b", status="fail", detail="")]).failed


@pytest.mark.slow
def test_speed_says_which_side_limits():
    from msvqa.engine.speed import measure
    from msvqa.recipe import ClipsConfig

    speed = measure(ClipsConfig())
    assert speed.limit in ("decoding", "computing")
    assert 1 <= speed.decode_workers <= speed.cpus
    assert all(flops > 0 for flops in speed.gemm_flops.values())


def test_decode_workers_follow_the_formula():
    from msvqa.engine.speed import Speed

    speed = Speed(
        device="gpu",
        devices=1,
        cpus=64,
        gemm_flops={},
        encoder_flops=36e12,
        decode_s=0.07,
        video_flops=2.15e12,
    )
    # 36 / 2.15 = 16.7 videos/s; 16.7 * 0.07 * 1.1 / 0.8 = 1.6 cores.
    assert speed.decode_workers == 2
    assert speed.limit == "computing"


def test_the_work_of_one_video_matches_the_published_encoders():
    from msvqa.engine.speed import video_flops
    from msvqa.recipe import ClipsConfig

    assert video_flops(ClipsConfig()) == pytest.approx(2.15e12, rel=0.01)


def test_storage_that_fails_is_a_check_that_fails(tmp_path, monkeypatch):
    featured.write_data(tmp_path)
    recipe = featured.make_recipe(tmp_path)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())

    def fail(*_):
        raise StorageError("the share does not answer")

    monkeypatch.setattr("msvqa.data.features.FeatureFiles.survey", fail)
    (found,) = [check for check in doctor(file).checks if check.name == "features"]
    assert (found.status, found.detail) == ("fail", "the share does not answer")
