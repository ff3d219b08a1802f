"""Features in HDF5 files that are opened anew for every question, as data sets of examples do."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from msvqa.data.store import Store


def write_files(folder: Path, store: Store) -> dict[str, Path]:
    """Write the features of a store as float32, one file for each kind."""
    files = {name: folder / f"{name}.h5" for name in store.spec.arrays}
    for name, file in files.items():
        with h5py.File(file, "w") as data:
            rows = [store.read(video)[name] for video in store.video_ids]
            data["features"] = np.stack(rows).astype(np.float32)
    return files


def read_per_question(files: dict[str, Path], videos: Sequence[int]) -> list[np.ndarray]:
    """Return the features of the videos of a batch's questions, one array for each kind.

    Args:
        files: by kind of features.
        videos: row of the video of every question.
    """
    rows = []
    for video in videos:
        row = []
        for file in files.values():
            with h5py.File(file) as opened:
                row.append(opened["features"][video])
        rows.append(row)
    return [np.stack(column) for column in zip(*rows, strict=True)]
