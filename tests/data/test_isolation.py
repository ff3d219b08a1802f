"""Calls in a child process: wherever the caller runs, and whatever becomes of the child."""

import errno
import os
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path

import pytest

from msvqa.data import isolation, isolation_server
from msvqa.data.isolation import Isolated

SCRIPT = """
print("starts")
from msvqa.data.isolation import Isolated
with Isolated(60.0) as isolated:
    print(isolated.call(abs, -3))
"""
FROM_ELSEWHERE = """
import asyncio, multiprocessing, threading
from msvqa.data.isolation import Isolated

def ask(name):
    with Isolated(60.0) as isolated:
        print(name, isolated.call(abs, -3), flush=True)

async def main():
    ask("in a loop")

ask("main")
asyncio.run(main())
for kind in (threading.Thread, multiprocessing.get_context("fork").Process):
    caller = kind(target=ask, args=(kind.__name__,), daemon=True)
    caller.start()
    caller.join()
"""


def run(tmp_path, script, way):
    (tmp_path / "scripts").mkdir()
    file = tmp_path / "scripts" / "ask.py"
    file.write_text(script, encoding="utf-8")
    if way == "script":
        # The folder that a script is started in is no place of its modules.
        (tmp_path / "pickle.py").write_text("raise SystemExit('the wrong one')", encoding="utf-8")
    words = {"script": [str(file)], "stdin": [], "-c": ["-c", script]}[way]
    return subprocess.run(
        [sys.executable, *words],
        input=script if way == "stdin" else "",
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.long
@pytest.mark.parametrize("way", ["script", "stdin", "-c"])
def test_a_caller_without_a_guard_is_not_run_again(tmp_path, way):
    done = run(tmp_path, SCRIPT, way)
    assert (done.stdout.split(), done.stderr, done.returncode) == (["starts", "3"], "", 0)


@pytest.mark.long
def test_calls_come_from_threads_loops_and_daemons(tmp_path):
    done = run(tmp_path, FROM_ELSEWHERE, "stdin")
    assert done.stdout.splitlines() == ["main 3", "in a loop 3", "Thread 3", "ForkProcess 3"]
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_call_starts_in_the_folder_that_the_caller_is_in(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with Isolated(60.0) as isolated:
            assert isolated.call(os.getcwd) == str(tmp_path / name)


def test_a_server_that_was_killed_is_replaced():
    with Isolated(60.0) as isolated:
        os.kill(isolated.call(os.getppid), 9)
    with Isolated(60.0) as isolated:
        assert isolated.call(abs, -3) == 3


def test_children_end_with_a_caller_that_is_killed(tmp_path):
    script = SCRIPT + "    import os; print(isolated.call(os.getpid), isolated.call(os.getppid))\n"
    script += "    print(flush=True); os.kill(os.getpid(), 9)\n"
    done = run(tmp_path, script, "-c")
    deadline = time.monotonic() + 20
    processes = [Path("/proc", number) for number in done.stdout.split()[2:]]
    assert len(processes) == 2
    while any(process.exists() and _state(process) != "Z" for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _state(process):
    return (process / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def refuse():
    raise ValueError("not today")


class Unfit(Exception):
    def __init__(self, first, second):
        super().__init__(first)


def fail_oddly():
    raise Unfit("odd", 2)


def test_errors_come_back_as_they_were():
    with Isolated(60.0) as isolated:
        with pytest.raises(ValueError, match="not today"):
            isolated.call(refuse)
        with pytest.raises(RuntimeError, match="Unfit: odd"):
            isolated.call(fail_oddly)
        with pytest.raises(TypeError, match="cannot be sent"):
            isolated.call(lambda: 3)
        assert isolated.call(abs, -3) == 3


@pytest.mark.long
def test_what_is_no_text_in_the_import_path_is_passed_over(monkeypatch):
    monkeypatch.setattr(sys, "path", [Path("somewhere"), *sys.path])
    with Isolated(60.0, ["msvqa.data.resize"]) as isolated:
        assert isolated.call(abs, -3) == 3


def test_a_server_that_cannot_fork_says_so_and_stays(monkeypatch):
    _, theirs = Pipe()
    calls, _ = os.pipe()
    monkeypatch.setattr(isolation_server, "recv_handle", lambda connection: calls)

    def refuse():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    found = isolation_server._start(theirs, set(), [], None)
    assert isinstance(found, OSError)
    assert found.errno == errno.EAGAIN


@pytest.mark.long
def test_imports_that_hang_are_said_after_a_while(tmp_path, monkeypatch):
    (tmp_path / "hangs.py").write_text("import time; time.sleep(60)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(isolation, "TAKES_UP_WITHIN_S", 0.5)
    with pytest.raises(ImportError, match=r"has not imported hangs within 0\.5 s"):
        Isolated(5.0, ["hangs"]).call(abs, -3)
