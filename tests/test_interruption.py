"""Ending by a signal, also where Python alone drops it; each in a process of its own."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from msvqa.interruption import EXIT_BY_SIGNAL, INTERRUPTED

PROGRAM = """
import sys, time, weakref
from msvqa.interruption import INTERRUPTED, Interruption, end_process

def work():
    print("ready", flush=True)
    {work}

def main():
    with Interruption(grace_s=1.0) as interruption:
        try:
            work()
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr)
            return interruption.exit_code
    return 0

end_process(main())
"""
WAITS = "time.sleep(60)"
DROPS = """
    class Owner: pass
    owner = Owner()
    seen = weakref.ref(owner, lambda _: time.sleep(2))
    del owner
    time.sleep(60)
"""
SWALLOWS = """
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""

HANGS_WITH_RAY = f"""
    from msvqa.engine.cluster import connected
    with connected():
        print("connected", flush=True)
        {SWALLOWS.strip().replace(chr(10), chr(10) + "    ")}
"""


def start(folder, work):
    file = folder / "program.py"
    file.write_text(PROGRAM.format(work=work))
    process = subprocess.Popen(
        [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", [WAITS, DROPS, SWALLOWS], ids=["waits", "drops", "swallows"])
def test_every_place_ends_in_time(tmp_path, work, number):
    process = start(tmp_path, work)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == EXIT_BY_SIGNAL + number
    assert said.splitlines()[-1] == INTERRUPTED


def test_an_import_is_finished_first(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.8)\nprint('imported')\n")
    process = start(tmp_path, "import slow; time.sleep(60)")
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=20)
    assert process.returncode == EXIT_BY_SIGNAL + signal.SIGINT
    assert (out, said) == ("imported\n", f"{INTERRUPTED}\n")


def test_what_is_registered_for_the_end_is_done(tmp_path):
    work = "import atexit; atexit.register(print, 'at exit'); time.sleep(60)"
    process = start(tmp_path, work)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (EXIT_BY_SIGNAL + signal.SIGTERM, "at exit\n")


def test_without_a_signal_nothing_changes(tmp_path):
    process = start(tmp_path, "time.sleep(1.5)")
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


@pytest.mark.ray
def test_the_processes_of_ray_follow_one_that_is_ended_outright(tmp_path):
    process = start(tmp_path, HANGS_WITH_RAY)
    assert process.stdout.readline() == "connected\n"
    started = psutil.Process(process.pid).children(recursive=True)
    # The agents look for a server that is gone for another minute, and end then.
    started = [one for one in started if not one.name().endswith("Agent")]
    assert {"raylet", "gcs_server"} <= {one.name() for one in started}
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == EXIT_BY_SIGNAL + signal.SIGTERM
    _, left = psutil.wait_procs(started, timeout=30)
    assert not left
