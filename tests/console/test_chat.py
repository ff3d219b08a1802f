"""Talking on a real terminal: an answer is ended, the conversation goes on, and then ends."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chat_run import chat_root, connected

ROOT = Path(__file__).parents[2]
LONG = 5_000
"""Words of an answer that nobody waits for."""
CTRL_C, CTRL_D = b"\x03", b"\x04"
PATIENCE_S = 120.0
WORD = r"[a-zA-Z?]+"


class Terminal:
    """A command whose three streams are a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self._ours, self._theirs = pty.openpty()
        # A session of its own takes the first terminal that it opens: Ctrl-C is for its processes.
        opens = f'exec 0<>{os.ttyname(self._theirs)} 1>&0 2>&0; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", opens, "bash", *words],
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        self._unread = ""

    def wait_for(self, pattern: str) -> str:
        """Return what came up to a pattern and with it."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.search(pattern, self._unread, re.DOTALL)):
            if select.select([self._ours], [], [], 0.1)[0]:
                self._unread += os.read(self._ours, 65_536).decode(errors="replace")
                continue
            is_over = self._process.poll() is not None or time.monotonic() > deadline
            assert not is_over, f"no {pattern!r} in {self._unread!r}"
        said, self._unread = self._unread[: found.end()], self._unread[found.end() :]
        return said

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def end(self) -> int:
        """Return how the command ends."""
        return self._process.wait(timeout=PATIENCE_S)

    def close(self) -> None:
        """End the command if it has not ended."""
        self._process.kill()
        self._process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    root = chat_root(folder / "data")
    run = connected(root, folder, root / "language", max_tokens=LONG)
    terminal = Terminal(
        sys.executable, "-m", "msvqa", "chat", str(run.location), str(root / "0.mp4")
    )
    yield terminal
    terminal.close()


@pytest.mark.slow
def test_ctrl_c_ends_one_answer_and_ctrl_d_the_conversation(chat):
    for question in ("what is it ?", "is it red ?"):
        chat.wait_for("> $")
        chat.type(f"{question}\n".encode())
        chat.wait_for(re.escape(question) + r"\s+" + WORD)
        chat.type(CTRL_C)
        answer = chat.wait_for(" …\r\n")
        assert "Traceback" not in answer
        assert len(answer.split()) < LONG / 2, "it ended long before it was whole"
    chat.wait_for("> $")
    chat.type(CTRL_D)
    assert chat.end() == 0
