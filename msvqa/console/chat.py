"""The command `chat`: a conversation about a video, word by word."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

PROMPT = "> "


def add_chat(add: Callable[..., argparse.ArgumentParser], verbs: Any) -> None:
    """Add the verb `chat`."""
    verb = add(verbs, "chat", _chat, "talk with a run about a video")
    verb.add_argument("path", metavar="RUN", help="run folder that ends with generation")
    verb.add_argument("video", metavar="VIDEO", help="video file, image or folder of frames")
    verb.set_defaults(is_answer=True)


def _chat(arguments: argparse.Namespace) -> int:
    from msvqa.talker import open_talker

    talker = open_talker(arguments.path)
    messages: list[dict[str, str]] = []
    for question in _questions():
        messages.append({"role": "user", "content": question})
        with _ended_by_signal() as asked:
            answer = talker.answer(arguments.video, messages, on_words=_say, stops=asked)
        print(" …" if asked() else "", flush=True)
        messages.append({"role": "assistant", "content": answer or "…"})
    return 0


def _questions() -> Iterator[str]:
    """Yield what is typed, until its end; nothing typed asks nothing."""
    while True:
        if sys.stdin.isatty():
            print(PROMPT, end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _say(words: str) -> None:
    print(words, end="", flush=True)


@contextmanager
def _ended_by_signal() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C end what is written in the block, and not the command."""
    came = threading.Event()

    def note(_: int, __: FrameType | None) -> None:
        came.set()

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    # What watches signals for the whole command is not to see this one.
    watched = signal.set_wakeup_fd(-1)
    before = signal.signal(signal.SIGINT, note)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(watched)
