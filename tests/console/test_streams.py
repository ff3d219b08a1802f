"""The standard streams of a command: absent, closed, full, broken, of a narrow encoding."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SHOW = [sys.executable, "-m", "msvqa", "recipe", "show", str(ROOT / "configs/quickstart.yaml")]
WORK = """
import sys
from msvqa import cli
def work(arguments):
    with open("kept", "w") as kept:
        print("caf\\u00e9 \\udcff")
        print("seen", file=sys.stderr)
        print(sys.stdin.read() == "")
        kept.write("whole")
        kept.flush()
        assert kept.fileno() > 2
    return 0
cli.{verb} = work
cli.run({words!r})
"""
"""A verb that prints, and has a file of its own."""


def run(tmp_path, verb, redirections, **environment):
    words = {"_train": ["train", "r.yaml"], "_predict": ["predict", "run", "-v.mp4", "-who?"]}[verb]
    (tmp_path / "work.py").write_text(WORK.format(verb=verb, words=words), encoding="utf-8")
    line = f'"{sys.executable}" work.py {redirections}'
    return subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


@pytest.mark.long
@pytest.mark.parametrize("verb", ["_train", "_predict"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_no_trouble(tmp_path, verb, closed):
    done = run(tmp_path, verb, closed)
    assert done.returncode == 0
    assert (tmp_path / "kept").read_text(encoding="utf-8") == "whole"
    assert done.stderr == (b"" if "2>&-" in closed else b"seen\n")


@pytest.mark.long
def test_work_goes_on_where_nothing_can_be_printed(tmp_path):
    done = run(tmp_path, "_train", "> /dev/full")
    assert done.returncode == 0
    assert b"seen\nstandard output cannot be written ([Errno 28]" in done.stderr
    assert run(tmp_path, "_train", "2> /dev/full").returncode == 0
    assert run(tmp_path, "_train", "2>&1 | true; exit ${PIPESTATUS[0]}").returncode == 0


def test_an_answer_that_cannot_be_printed_is_an_error_in_one_sentence(tmp_path):
    done = run(tmp_path, "_predict", "> /dev/full")
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == [
        b"error: the answer cannot be printed: [Errno 28] No space left on device"
    ]
    assert run(tmp_path, "_predict", "| true; exit ${PIPESTATUS[0]}").returncode == 141


@pytest.mark.long
@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, rb"caf\xe9 \udcff"),
        ({"PYTHONIOENCODING": "latin-1"}, b"caf\xe9 \\udcff"),
        ({"PYTHONIOENCODING": "utf-8"}, "café \\udcff".encode()),
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, rb"caf\xe9 \udcff"),
    ],
)
def test_names_are_printed_in_any_encoding(tmp_path, environment, shown):
    done = run(tmp_path, "_train", "", **environment)
    assert (done.stdout.splitlines()[0], done.returncode) == (shown, 0)


@pytest.mark.long
def test_what_is_shown_in_a_narrow_encoding_reads_back_the_same():
    shown = [
        subprocess.run(
            [*SHOW, "name=quick", "data.root=/données"],
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=True,
        ).stdout
        for encoding in ("utf-8", "ascii")
    ]
    assert shown[0] != shown[1].decode("ascii").encode()
    assert yaml.safe_load(shown[0]) == yaml.safe_load(shown[1])
