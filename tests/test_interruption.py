"""Ending by a signal, also where Python alone drops it; each in a process of its own."""

import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from msvqa.interruption import EXIT_BY_SIGNAL, INTERRUPTED

GRACE_S = 1.0
PROGRAM = """
import atexit, hashlib, signal, sys, threading, time, weakref
from msvqa.interruption import INTERRUPTED, Interruption, end_process

def ready(*_):
    print("ready", flush=True)

def work():
    {work}

def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Interruption(grace_s={grace_s}) as interruption:
        try:
            work()
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr, flush=True)
            return interruption.exit_code
    return 0

end_process(main())
"""
WAITS = "ready(); time.sleep(60)"
DROPS = """
    class Owner: pass
    owner = Owner()
    seen = weakref.ref(owner, lambda _: (ready(), time.sleep(60)))
    del owner
    time.sleep(60)
"""
SWALLOWS = """
    try:
        ready()
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(60)
"""
STAYS_IN_C = """
    threading.Timer(0.5, ready).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
HANGS_WITH_RAY = f"""
    from msvqa.engine.cluster import connected
    with connected():
        {SWALLOWS.strip().replace(chr(10), chr(10) + "    ")}
"""


def start(folder, work, grace_s=GRACE_S):
    file = folder / "program.py"
    file.write_text(PROGRAM.format(work=work, grace_s=grace_s))
    process = subprocess.Popen(
        [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("work", "outright"),
    [(WAITS, False), (DROPS, True), (SWALLOWS, True), (STAYS_IN_C, True)],
    ids=["waits", "drops", "swallows", "in C"],
)
def test_every_place_ends_in_time(tmp_path, work, outright, number):
    process = start(tmp_path, work)
    sent_at = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == EXIT_BY_SIGNAL + number
    assert said.splitlines()[-1] == INTERRUPTED
    if outright:
        assert time.monotonic() - sent_at >= GRACE_S


@pytest.mark.long
def test_an_end_needs_no_reader(tmp_path):
    process = start(tmp_path, SWALLOWS)
    process.stderr.close()
    process.stdout.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == EXIT_BY_SIGNAL + signal.SIGTERM


@pytest.mark.long
def test_an_import_is_finished_first(tmp_path):
    go = tmp_path / "go"
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\nprint('ready', flush=True)\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\nprint('imported')\n"
    )
    process = start(tmp_path, "import slow; time.sleep(60)", grace_s=60.0)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    go.touch()
    out, said = process.communicate(timeout=30)
    assert process.returncode == EXIT_BY_SIGNAL + signal.SIGINT
    assert (out, said) == ("imported\n", f"{INTERRUPTED}\n")


@pytest.mark.long
def test_an_import_without_end_is_not_waited_for(tmp_path):
    (tmp_path / "endless.py").write_text(
        "import time\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    process = start(tmp_path, "import endless")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == EXIT_BY_SIGNAL + signal.SIGTERM


TAKES_ITS_TIME = """
    signal.signal(signal.SIGTERM, lambda *_: None)
    ready()
    time.sleep(3)
    print("checkpoint", flush=True)
    time.sleep(60)
"""


@pytest.mark.long
def test_a_handler_of_its_own_may_take_its_time_and_a_second_signal_may_not(tmp_path):
    process = start(tmp_path, TAKES_ITS_TIME)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "checkpoint\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == EXIT_BY_SIGNAL + signal.SIGINT


def test_what_is_registered_for_the_end_is_done(tmp_path):
    work = "atexit.register(print, 'at exit'); ready(); time.sleep(60)"
    process = start(tmp_path, work)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (EXIT_BY_SIGNAL + signal.SIGTERM, "at exit\n")


@pytest.mark.long
def test_without_a_signal_nothing_changes(tmp_path):
    process = start(tmp_path, "ready(); time.sleep(1.5)")
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


@pytest.mark.ray
@pytest.mark.slow
def test_the_processes_of_ray_follow_one_that_is_ended_outright(tmp_path):
    process = start(tmp_path, HANGS_WITH_RAY)
    started = psutil.Process(process.pid).children(recursive=True)
    assert {"raylet", "gcs_server"} <= {*names_of(started)}
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == EXIT_BY_SIGNAL + signal.SIGTERM
    deadline = time.monotonic() + 150
    while names_of(started) and time.monotonic() < deadline:
        time.sleep(1)
    assert not names_of(started)


@pytest.mark.ray
@pytest.mark.slow
def test_a_termination_while_ray_starts_is_ours(tmp_path):
    """Ray's own handler, in place while it starts, ends the process with code 15."""
    work = """
    import ray._private.node
    from msvqa.engine.cluster import connected
    ray._private.node.Node.__init__ = lambda *_, **__: (ready(), time.sleep(60))
    with connected():
        pass
"""
    process = start(tmp_path, work)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == EXIT_BY_SIGNAL + signal.SIGTERM, said
    assert INTERRUPTED in said


def names_of(processes):
    """Return the names of those that still run."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
    return found
