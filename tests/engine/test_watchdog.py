"""The watchdog: who is missing, and what is written when a step takes too long."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest

from msvqa.engine.watchdog import Beat, Watchdog, name_missing, read_beats, telling_verdicts


def beat(rank: int, begun: int, time: float = 100.0, doing: str = "loads a batch") -> Beat:
    return Beat(rank=rank, begun=begun, doing=doing, time=time, host="node", pid=1000 + rank)


def test_the_worker_that_is_behind_is_missing():
    said = name_missing([beat(0, 12, doing="averages gradients"), beat(1, 11)], 2, silent_s=10)
    assert said == "missing is worker 1 (process 1001 on node), which loads a batch"


def test_a_silent_worker_is_missing_even_if_it_was_ahead():
    said = name_missing([beat(0, 12), beat(1, 13, time=60.0)], 2, silent_s=10)
    assert said.startswith("missing is worker 1 (process 1001 on node), last heard of 40 s ago")


def test_a_worker_that_never_spoke_is_named():
    assert name_missing([beat(0, 1)], 3, silent_s=10) == "nothing was ever heard of worker 1, 2"


def test_nobody_is_blamed_when_all_are_alike():
    assert name_missing([beat(0, 5), beat(1, 5)], 2, silent_s=10).startswith("no worker is behind")


@pytest.mark.long
def test_a_late_step_is_written_once_with_all_stacks(tmp_path):
    late, go_on = threading.Event(), threading.Event()

    def stuck_in_here():
        late.set()
        go_on.wait(60)

    with Watchdog(tmp_path, "answer", rank=0, workers=1, limit_s=0.2) as watchdog:
        watchdog.begins("loads the batch of step 7")
        thread = threading.Thread(target=stuck_in_here)
        thread.start()
        verdicts = tmp_path / "watchdog.log"
        while not verdicts.is_file():
            late.wait(0.01)
        go_on.wait(0.5)
        go_on.set()
        thread.join()
    assert verdicts.read_text().count("loads the batch of step 7 for more than 0.2 s") == 1
    assert "stuck_in_here" in (tmp_path / "answer-worker0-stacks.txt").read_text()
    assert [b.doing for b in read_beats(tmp_path, "answer", 1)] == ["loads the batch of step 7"]


@pytest.mark.long
def test_what_has_no_limit_may_take_long(tmp_path):
    with Watchdog(tmp_path, "answer", rank=0, workers=1, limit_s=0.1) as watchdog:
        watchdog.begins("validates", limited=False)
        while not read_beats(tmp_path, "answer", 1):
            threading.Event().wait(0.05)
        threading.Event().wait(0.3)
    assert not (tmp_path / "watchdog.log").exists()
    assert not list(tmp_path.glob("*stacks.txt"))


def write_beat(logs, age_s: float):
    silent = beat(1, 3, time=time.time() - age_s, doing="validates")
    (logs / ".answer-worker1.beat").write_text(json.dumps(asdict(silent)))


@pytest.mark.long
@pytest.mark.parametrize("age_s", [0, 3600, -3600])
def test_silence_of_another_is_found_also_where_there_is_no_limit(tmp_path, age_s):
    """Whatever the clock of its machine says."""
    with Watchdog(tmp_path, "answer", rank=0, workers=2, limit_s=0.2) as watchdog:
        watchdog.begins("validates", limited=False)
        write_beat(tmp_path, age_s)
        verdicts = tmp_path / "watchdog.log"
        while not verdicts.is_file():
            time.sleep(0.01)
    assert "missing is worker 1 (process 1001 on node), last heard of" in verdicts.read_text()


@pytest.mark.long
def test_a_machine_whose_clock_is_behind_is_not_missed(tmp_path):
    ended = threading.Event()

    def beats():
        age_s = 3600.0
        while not ended.wait(0.02):
            write_beat(tmp_path, age_s := age_s - 0.01)

    other = threading.Thread(target=beats)
    other.start()
    with Watchdog(tmp_path, "answer", rank=0, workers=2, limit_s=0.4) as watchdog:
        watchdog.begins("validates", limited=False)
        time.sleep(1.2)
    ended.set()
    other.join()
    assert not (tmp_path / "watchdog.log").exists()


@pytest.mark.long
@pytest.mark.parametrize(("workers", "age_s"), [(1, 0), (2, 0), (2, 3600)])
def test_workers_of_an_earlier_start_are_not_missed(tmp_path, workers, age_s):
    write_beat(tmp_path, age_s)
    with Watchdog(tmp_path, "answer", rank=0, workers=workers, limit_s=0.1) as watchdog:
        watchdog.begins("validates", limited=False)
        time.sleep(0.5)
    assert not (tmp_path / "watchdog.log").exists()


def test_the_driver_repeats_new_verdicts(tmp_path, caplog):
    verdicts = tmp_path / "watchdog.log"
    verdicts.write_text("worker 0: one of an earlier start\n")
    with telling_verdicts(tmp_path), verdicts.open("a") as file:
        file.write("worker 0: stage answer: 100 % missing is worker 1\n")
    assert caplog.messages == ["worker 0: stage answer: 100 % missing is worker 1"]


HOLDER = """
import ctypes, sys, time
from pathlib import Path
from msvqa.engine import watchdog

def holds_the_interpreter():
    ctypes.PyDLL(None).sleep(3)

watchdog.GIL_GRACE_S = 0.2
with watchdog.Watchdog(Path(sys.argv[1]), "answer", rank=0, workers=1, limit_s=0.8) as dog:
    dog.begins("computes")
    time.sleep(0.4)
    holds_the_interpreter()
"""


@pytest.mark.long
def test_native_code_that_holds_the_interpreter_is_found(tmp_path):
    subprocess.run([sys.executable, "-c", HOLDER, str(tmp_path)], check=True, timeout=120)
    stacks = (tmp_path / "answer-worker0-stacks.txt").read_text()
    assert "Timeout" in stacks, "written by the C thread, which needs no interpreter"
    assert "holds_the_interpreter" in stacks.partition("Timeout")[2]
