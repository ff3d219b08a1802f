"""The study of MSVD-QA's full shape: what it draws, how it looks at processes, what it judges."""

import hashlib
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import replace

import av
import numpy as np
import psutil
import pytest

from benchmarks.full_shape import table
from benchmarks.full_shape.counts import equal, once_of
from benchmarks.full_shape.data_set import QUESTIONS, VIDEOS, WHOLE, Shape, draw_questions, generate
from benchmarks.full_shape.process_tree import Took, follow, object_store_bytes
from benchmarks.full_shape.table import Row, growth, is_bounded, pairs
from benchmarks.full_shape.verbs import Place, Verb, verbs
from msvqa.cli import build_parser
from msvqa.engine.cluster import OBJECT_STORE_BYTES
from msvqa.prepare import prepare
from msvqa.recipe import load, parse_data

TINY = Shape({"train": 2, "val": 1, "test": 1}, {"train": 20, "val": 8, "test": 6}, encoded=2)


def test_as_many_questions_as_published_are_drawn():
    rows = draw_questions(WHOLE, np.random.default_rng(0))
    asked = [row for split in rows.values() for row in split]
    assert {split: len(found) for split, found in rows.items()} == QUESTIONS
    assert len({row["id"] for row in asked}) == len(asked) == 50_505
    of_video = {split: Counter(row["video_id"] for row in found) for split, found in rows.items()}
    assert {split: len(found) for split, found in of_video.items()} == VIDEOS
    counts = [*of_video["train"].values()]
    assert 5 <= min(counts) <= 10
    assert 45 <= max(counts) <= 80
    assert 1_500 < len({row["answer"] for row in rows["train"]}) <= 1_850


def test_a_part_has_its_share_of_both():
    part = WHOLE.part(200)
    assert part.size == 200
    assert sum(part.questions.values()) == pytest.approx(50_505 * 200 / 1970, abs=2)
    assert set(part.ids("val")) < set(WHOLE.ids("val"))


@pytest.mark.long
def test_drawn_videos_are_like_those_of_msvd_and_no_two_files_are_equal(tmp_path):
    generate(tmp_path / "data", TINY)
    files = sorted((tmp_path / "data" / "video").iterdir())
    assert len({hashlib.sha256(file.read_bytes()).digest() for file in files}) == len(files) == 4
    shown = [_frames(file) for file in files]
    assert all(250 <= len(frames) <= 300 for frames in shown)
    assert shown[0][0].shape == (240, 320, 3)
    # The third has the packets of the first.
    assert all(map(np.array_equal, shown[0], shown[2]))
    assert not np.array_equal(shown[0][0], shown[1][0])
    prepared = prepare(parse_data("msvd_qa", [], root=str(tmp_path / "data")))
    assert {name: len(prepared.split(name)) for name in prepared.splits} == TINY.questions


def _frames(file):
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.long
def test_published_questions_are_those_of_the_videos_that_are_drawn(tmp_path):
    published = tmp_path / "published"
    published.mkdir()
    for split, first in {"train": 1, "val": 1201, "test": 1451}.items():
        rows = [{"id": first + n, "video_id": first + n, "question": "q?"} for n in range(3)]
        (published / f"{split}_qa.json").write_text(json.dumps(rows), encoding="utf-8")
    stems = {video: f"-stem_{video}" for split in VIDEOS for video in WHOLE.ids(split)}
    lines = "".join(f"{stem} vid{video}\n" for video, stem in stems.items())
    (published / "youtube_mapping.txt").write_text(lines, encoding="utf-8")
    rows = generate(tmp_path / "data", replace(TINY, encoded=1), published)
    assert {s: [row["video_id"] for row in of] for s, of in rows.items()} == {
        "train": [1, 2], "val": [1201], "test": [1451],
    }  # fmt: skip
    names = {file.stem for file in (tmp_path / "data" / "video").iterdir()}
    assert names == {"-stem_1", "-stem_2", "-stem_1201", "-stem_1451"}


@pytest.mark.long
def test_the_commands_are_ones_that_the_package_takes(tmp_path):
    place = Place(tmp_path)
    generate(place.data, replace(TINY, encoded=1))
    rows = json.loads((place.data / "test_qa.json").read_text(encoding="utf-8"))
    given = [*verbs(place, {"test": rows})]
    parser = build_parser()
    asked = [parser.parse_args(verb.words) for verb in given]
    recipes = [load(a.recipe, a.overrides) for a in asked if getattr(a, "recipe", None)]
    assert {recipe.data.prepared for recipe in recipes} == {str(place.prepared)}
    assert [verb.name for verb in given if verb.code] == ["train, MSVQA, interrupted after step 4"]


CHILDREN = """
import subprocess, sys, time
child = "import time; x = b'1' * 60_000_000; end = time.process_time() + 0.7\\n"
child += "while time.process_time() < end: pass\\ntime.sleep(0.8)"
for process in [subprocess.Popen([sys.executable, "-c", child]) for _ in range(2)]:
    process.wait()
"""


@pytest.mark.long
def test_processes_below_a_command_are_counted_together(tmp_path):
    took = follow([sys.executable, "-c", CHILDREN], tmp_path / "log")
    assert (took.code, took.left, took.object_store_bytes) == (0, 0, 0)
    assert took.cpu_s >= 1.4
    assert 0.12 < took.gb < 0.4


LEAVING = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.long
def test_a_command_is_interrupted_and_what_it_leaves_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.full_shape.process_tree.END_WITHIN_S", 0.5)
    log = tmp_path / "log"

    def has_child():
        return log.is_file() and log.read_text().endswith("\n")

    looks = iter([False] * 3)
    took = follow([sys.executable, "-c", LEAVING], log, lambda: has_child() and next(looks, True))
    assert took.code == -signal.SIGINT
    assert took.left == 1
    pid = int(log.read_text().split()[0])
    psutil.wait_procs([p for p in psutil.process_iter() if p.pid == pid], timeout=5)
    assert not psutil.pid_exists(pid)


def test_what_an_object_store_has_filled_is_seen_though_its_file_has_no_name():
    assert object_store_bytes(os.getpid()) == 0
    with tempfile.NamedTemporaryFile(prefix="plasma") as file:
        file.truncate(100_000_000)
        file.write(b"1" * 1_000_000)
        file.flush()
        os.fsync(file.fileno())
        assert 1_000_000 <= object_store_bytes(os.getpid()) < 2_000_000


def test_only_what_was_found_exactly_once_counts():
    assert once_of([3, 1, 1, 2], range(5)) == 2


def row(size, cpu_s, held, name="extract"):
    took = Took(code=0, s=1.0, cpu_s=cpu_s, gb=1.0, object_store_bytes=held, left=0)
    return Row(Verb(name, [], None), size, took, 0)


def test_growth_is_judged_by_the_video():
    few, many, alone = (
        row(200, 20, 50_000_000),
        row(2000, 200, 60_000_000),
        row(2000, 9, 0, "other"),
    )
    assert pairs([few, many, alone]) == [(few, many)]
    assert growth(few, many) == "CPU s per video 1.00 times (not faster), object store 1.20 times"
    assert "FASTER" in growth(few, row(2000, 250, 0))
    assert is_bounded(few, many)
    assert not is_bounded(few, row(2000, 200, 500_000_000))
    # Of a store in which hardly anything was, ten times as much means nothing.
    assert is_bounded(row(200, 20, 20_000), row(2000, 200, 200_000))


def test_decoders_that_work_ahead_take_a_share_of_the_object_store():
    def ahead(size, share):
        found = row(size, 20, int(share * OBJECT_STORE_BYTES))
        return replace(found, verb=replace(found.verb, works_ahead=True))

    assert is_bounded(ahead(200, 0.2), ahead(2000, 0.5))
    assert not is_bounded(ahead(200, 0.6), ahead(2000, 0.7))


def test_the_table_has_a_line_for_each_command_and_count(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "machine", dict)
    rows = [row(200, 20, 50_000_000), row(2000, 200, 60_000_000)]
    checks = [equal("answers", 13157, 13157), equal("videos", 1969, 1970)]
    text = table.write("the command", rows, checks).read_text(encoding="utf-8")
    assert "| extract | 200 | 1 | 20 | 1.00 | 50.00 | 0.0 |" in text
    assert "| extract | CPU s per video 1.00 times (not faster), object store 1.20 times |" in text
    assert "| answers | 13157 | exact |" in text
    assert "| videos | 1969 | WRONG |" in text
