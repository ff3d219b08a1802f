"""Files of which one process at a time takes care: who waits, for whom, and who goes on."""

import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from msvqa.data.store import SHARD
from msvqa.extract import LOCK
from msvqa.extract import _locked as extraction_turn
from msvqa.files import turn
from msvqa.machine import ONE_AT_A_TIME, alone
from msvqa.prepare import _locked as preparation_turn
from msvqa.storage import open_folder

HOLD = """
import sys, time
from pathlib import Path
from msvqa.files import turn
with turn(Path(sys.argv[1]), "holds it"):
    print("held", flush=True)
    time.sleep(60)
"""
WAIT = "import logging; logging.basicConfig(level='INFO')" + HOLD


@contextmanager
def held(path, lives_s=2.5):
    """Have another process hold a file; it is killed after a while, at the latest at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "held\n"
        killing = threading.Timer(lives_s, other.kill)
        killing.start()
        try:
            yield other
        finally:
            killing.cancel()
            other.kill()


@pytest.mark.long
def test_who_waits_says_for_whom_and_goes_on_when_the_other_dies(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with held(tmp_path / "lock") as other:
        with turn(tmp_path / "lock", "extracts to S", lambda: "1 of 3"):
            assert other.wait() == -signal.SIGKILL
        waiting, going_on = caplog.messages
    assert waiting.startswith(f"waiting for process {other.pid} on ")
    assert waiting.endswith(", which extracts to S: 1 of 3")
    assert going_on == "the other has ended; going on"


def test_who_does_not_wait_says_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(2):
        with turn(tmp_path / "lock", "extracts to S"):
            pass
    assert not caplog.messages


@pytest.mark.long
def test_waiting_ends_with_ctrl_c(tmp_path):
    with (
        held(tmp_path / "lock", lives_s=60),
        subprocess.Popen(
            [sys.executable, "-c", WAIT, str(tmp_path / "lock")],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stderr=subprocess.PIPE,
            text=True,
        ) as waiting,
    ):
        said = waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        assert "waiting for process" in said
        assert "KeyboardInterrupt" in waiting.stderr.read()


@pytest.mark.long
def test_an_extraction_of_the_same_store_waits(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = open_folder(tmp_path / "store")
    (tmp_path / "store" / "shards" / "00000").mkdir(parents=True)
    (tmp_path / "store" / "shards" / "00000" / SHARD).touch()
    with held(folder.path / LOCK) as other, extraction_turn(folder):
        assert other.wait() == -signal.SIGKILL
    assert f"which extracts to {folder.path}: 1 shards are there" in caplog.text


@pytest.mark.long
def test_a_preparation_of_the_same_folder_waits(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with held(tmp_path / ".lock") as other, preparation_turn(tmp_path):
        assert other.wait() == -signal.SIGKILL
    assert f"which prepares {tmp_path}" in caplog.text


@pytest.mark.long
def test_a_download_to_the_same_place_waits(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with held(tmp_path / ONE_AT_A_TIME) as other, alone(tmp_path):
        assert other.wait() == -signal.SIGKILL
    assert f"which works in {tmp_path}" in caplog.text
