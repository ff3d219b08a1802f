"""Rows of Ray: how their parts are counted, who takes turns, and what processor time is whose."""

import subprocess
import sys
import threading
import time
from typing import cast

import psutil
import pytest

from benchmarks.instrument import Options, measured
from benchmarks.measure import Family
from benchmarks.rows import ray_overhead
from benchmarks.rows.ray_overhead import Marked, Turns
from benchmarks.rows.setting import CPU
from benchmarks.rows.table import ROWS
from msvqa.data.medium import Medium
from msvqa.data.processors.clips import Clips
from msvqa.data.processors.processor import Processor
from msvqa.engine.ingest import Streamer
from tests import barcode_video

BUSY = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); time.sleep(60)"
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
NEEDED_S = 0.25


def test_what_marks_a_stream_is_all_that_a_stream_asks_of_an_extractor(tmp_path):
    clips = Clips(Clips.Config(num_clips=1, frames_per_clip=2, size_px=16))
    streamer = Streamer(cast(Processor, Marked(clips, tmp_path, [4, 20])))
    path = barcode_video.write(tmp_path / "v.avi", 12)
    made = streamer([(number, Medium(str(number), str(path))) for number in (4, 5)])
    assert made["error"].tolist() == ["", ""]
    assert [file.name for file in tmp_path.glob("begun-*")] == ["begun-4"]


def test_each_way_comes_first_as_often():
    came = []

    def part(name):
        came.append(name)
        return [float(len(came))]

    costs = ray_overhead._by_part({name: lambda n=name: part(n) for name in "ab"}, 3)
    assert "".join(came) == "abbaab"
    assert costs == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_processor_time_is_of_the_child_whose_process_has_taken_it():
    with Family() as family:
        before = family.seconds()
        command = [sys.executable, "-c", PARENT, BUSY]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            (process,) = (c for c in psutil.Process().children() if c.pid == child.pid)
            assert family.seconds() - before > NEEDED_S
            assert family.seconds(without=[process]) - before < NEEDED_S
            for each in (*process.children(), process):
                each.kill()
        assert family.seconds() - before > NEEDED_S, "also after its end"


def test_groups_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_overhead.dist, "barrier", lambda: None)
    order = ("a", "b", "b", "a", "b")
    turns, done, at_work = Turns(tmp_path, order), [], threading.Lock()

    def part(name):
        assert at_work.acquire(blocking=False), "another group is at work"
        time.sleep(0.02)
        done.append(name)
        at_work.release()
        return 1.0

    groups = [threading.Thread(target=turns.take, args=(n, lambda n=n: part(n))) for n in "ab"]
    for group in groups:
        group.start()
    for group in groups:
        group.join()
    assert tuple(done) == order


def test_a_group_that_does_not_come_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_overhead.dist, "barrier", lambda: None)
    monkeypatch.setattr(ray_overhead, "TURN_LIMIT_S", 0.05)
    with pytest.raises(TimeoutError, match="nobody has come to b"):
        Turns(tmp_path, ("a", "b")).take("a", lambda: 1.0)


@pytest.mark.ray
@pytest.mark.again
@pytest.mark.parametrize("name", ["R1", "R3", "R4"])
def test_a_row_runs_at_tiny_size(name):
    rows = [row for row in ROWS if row.id == name]
    found = measured(rows, Options("cpu", rounds=2, is_tiny=True), CPU)
    assert {finding.name.split()[0] for finding in found} == {name}
