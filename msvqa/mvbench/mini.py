"""A small MVBench that anyone can make: questions about drawn squares, with their media."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from msvqa.data.datasets.mvbench import ANNOTATIONS, MANIFEST, MEDIA
from msvqa.data.sampling import FRAMES_FPS
from msvqa.errors import DataError
from msvqa.files import folder_written_aside
from msvqa.mvbench.drawing import write_media
from msvqa.mvbench.scenes import FOLDER_FRAMES, FPS, FRAMES, SIZE_PX, Drawn, draw
from msvqa.mvbench.tasks import TASKS, Task

ORDERS = ("shuffled", "fixed")
"""Of the options: in a drawn order, or in one order for each task, which tiny models can learn:
they do not learn to look a letter up."""
ROOMS = {
    "star/Charades_v1_480": "spans",
    "perception/videos": "shared",
    "clevrer/video_validation": "shared_too",
}
"""Folders of several tasks. As in the published ones, their files have names in common that are
different videos."""


def make_mini(root: str | Path, *, items: int = 3, seed: int = 0, order: str = "shuffled") -> Path:
    """Write a small MVBench into a folder, with equal files for equal arguments.

    Args:
        root: folder that is absent or empty; it appears only when it is complete.
        items: questions of each task.
        seed: chooses everything that is drawn.
        order: of the options, one of `ORDERS`.

    Raises:
        DataError: `root` holds something else, or there is no such order or number.
    """
    root = Path(root)
    if order not in ORDERS:
        raise DataError(f"no order of options {order!r}; there are {', '.join(ORDERS)}")
    if items < 1:
        raise DataError(f"questions of a task: at least 1, not {items}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} is not empty; name another folder")
    with folder_written_aside(root, MANIFEST) as aside:
        _write(aside, items, seed, order)
    return root


def _write(root: Path, items: int, seed: int, order: str) -> None:
    (root / ANNOTATIONS).mkdir()
    media: list[dict[str, Any]] = []
    tasks: list[dict[str, Any]] = []
    taken: Counter[str] = Counter()
    for task in TASKS:
        rows, folder = [], f"{MEDIA}/{ROOMS.get(task.media_root, task.file)}"
        for index, drawn in enumerate(draw(task, seed, items)):
            generator = np.random.default_rng([seed, TASKS.index(task), index, 1])
            taken[folder] += 1
            name = f"video_{taken[folder]:04d}{'' if task.is_frames else '.mp4'}"
            rows.append(_row(drawn, name, generator if order == "shuffled" else None))
            media.append(drawn_medium(task, drawn, f"{folder}/{name}"))
        annotation = f"{ANNOTATIONS}/{task.file}.json"
        (root / annotation).write_text(json.dumps(rows, indent=1), encoding="utf-8")
        tasks.append(
            {
                "task": task.name,
                "annotation": annotation,
                "media_root": folder,
                "kind": "frame" if task.is_frames else "video",
                "bounded": task.bounded,
                "items": items,
            }
        )
    manifest = {
        "frame_size": [SIZE_PX, SIZE_PX],
        "seed": seed,
        "order_of_options": order,
        "media": media,
        "tasks": tasks,
    }
    write_media(root, manifest)
    (root / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def _row(drawn: Drawn, name: str, generator: np.random.Generator | None) -> dict[str, Any]:
    options = list(drawn.options)
    if generator is not None:
        options = [options[n] for n in generator.permutation(len(options))]
    row: dict[str, Any] = {
        "video": name,
        "question": drawn.question,
        "candidates": options,
        "answer": drawn.answer,
    }
    if drawn.span is not None:
        row["start"], row["end"] = drawn.span
    return row


def drawn_medium(task: Task, drawn: Drawn, path: str) -> dict[str, Any]:
    """Return a medium as `drawing.py` reads it."""
    return {
        "path": path,
        "kind": "frame" if task.is_frames else "video",
        "fps": FRAMES_FPS if task.is_frames else FPS,
        "n_frames": FOLDER_FRAMES if task.is_frames else FRAMES,
        "background": [asdict(ground) for ground in drawn.background],
        "squares": [asdict(square) for square in drawn.squares],
    }
