"""Feature files in the one-file layout of DualVGR and HCRN (HDF5): reading and writing.

Appearance: `resnet_features` (videos, clips, frames, width). Motion: `resnext_features`
(videos, clips, width). Both: `ids` (videos,), whole numbers of any type; rows are in any order.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from msvqa.data.finite import as_stored, to_type
from msvqa.data.hdf5 import IDS, Rows
from msvqa.data.store import Arrays, Store
from msvqa.errors import DataError, VideoError
from msvqa.files import written_aside
from msvqa.recipe import ClipsConfig, FeaturesConfig

APPEARANCE, MOTION = "resnet_features", "resnext_features"


@dataclass(frozen=True)
class Survey:
    """What a look at all rows has found."""

    unusable: dict[str, str] = field(default_factory=dict)
    """Videos whose rows cannot be used, each with the cause."""
    zero: dict[str, list[str]] = field(default_factory=dict)
    """Videos whose rows hold nothing but zeros, for each data set that has some."""


class FeatureFiles:
    """Two feature files, read one video at a time, with their shapes checked against the recipe."""

    def __init__(self, features: FeaturesConfig, clips: ClipsConfig) -> None:
        self._features = features
        self._clips = clips

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._appearance and video_id in self._motion

    def __repr__(self) -> str:
        return f"{self._features.appearance_hdf5} and {self._features.motion_hdf5}"

    @property
    def video_ids(self) -> list[str]:
        """Videos that have a row in both files."""
        return [video for video in self._appearance.video_ids if video in self._motion]

    def check(self) -> None:
        """Open both files.

        Raises:
            DataError: a file that is no feature file, or of other shapes than the recipe says.
            StorageError: a file cannot be read now.
        """
        _ = self._appearance, self._motion

    def read(self, video_id: str) -> Arrays:
        """Return appearance and motion of a video.

        Raises:
            VideoError: a file has no row for it, or one that is unreadable or not finite.
            DataError, StorageError: as `check`.
        """
        if video_id not in self:
            raise VideoError("no_features", f"no row for video {video_id} in {self}")
        return {
            "appearance": self._stored(self._appearance, video_id),  # (C, F, D)
            "motion": self._stored(self._motion, video_id),  # (C, D)
        }

    def problem(self, video_id: str) -> str:
        """Return why `read` refuses a video; nothing where it does not."""
        try:
            self.read(video_id)
        except VideoError as error:
            return str(error)
        return ""

    def survey(self, video_ids: Collection[str]) -> Survey:
        """Look at the rows of many videos, block by block: what `read` would refuse, and zeros."""
        found = Survey()
        for rows in (self._appearance, self._motion):
            for videos, block in rows.blocks(video_ids):
                if block is None:
                    suspects, empty = videos, []
                else:
                    flat = to_type(self._pooled(rows, block), self._features.dtype)
                    flat = flat.reshape(len(videos), -1)
                    finite, zero = np.isfinite(flat).all(axis=1), ~flat.any(axis=1)
                    suspects = [videos[row] for row in np.flatnonzero(~finite)]
                    empty = [videos[row] for row in np.flatnonzero(zero)]
                found.unusable.update({video: self.problem(video) for video in suspects})
                if empty:
                    found.zero.setdefault(rows.name, []).extend(empty)
        return found

    def _stored(self, rows: Rows, video_id: str) -> np.ndarray:
        values = self._pooled(rows, rows.read(video_id))
        return as_stored(values, self._features.dtype, rows.place(video_id))

    def _pooled(self, rows: Rows, values: np.ndarray) -> np.ndarray:
        """Return motion (..., D) of motion (..., D·P): the mean over the positions of a map."""
        if rows is not self._motion or not self._features.pool_motion:
            return values
        # Channels first.
        return values.reshape(*values.shape[:-1], self._features.motion_width, -1).mean(axis=-1)

    @cached_property
    def _appearance(self) -> Rows:
        clips, width = self._clips, self._features.appearance_width
        shape = (clips.num_clips, clips.frames_per_clip, width)
        return self._open(self._features.appearance_hdf5, (APPEARANCE,), shape)

    @cached_property
    def _motion(self) -> Rows:
        shape = (self._clips.num_clips, self._features.motion_width)
        return self._open(self._features.motion_hdf5, (MOTION, APPEARANCE), shape)

    def _open(self, file: str | None, names: tuple[str, ...], shape: tuple[int, ...]) -> Rows:
        rows = Rows(str(file), names)
        _check_shape(rows, shape, self._features.pool_motion)
        return rows


def _check_shape(rows: Rows, shape: tuple[int, ...], unpooled: bool) -> None:
    found = rows.shape
    if found == shape:
        return
    if found[:-1] == shape[:-1] and len(found) == 2 and found[-1] % shape[-1] == 0:
        if unpooled:
            return
        advice = (
            f"the width is {found[-1] // shape[-1]} times what is wanted, as in motion features "
            "made at 224 px without pooling: set features.pool_motion=true"
        )
    else:
        advice = "set clips.num_clips, clips.frames_per_clip and the widths in features to match"
    raise DataError(f"{rows.name} has rows of shape {found}, the recipe says {shape}; {advice}")


def hdf5_paths(file: Path) -> tuple[Path, Path]:
    """Return the names of the two files: `a.h5` means `a_appearance_feat.h5` and its sister."""
    stem = file.stem if file.suffix in (".h5", ".hdf5") else file.name
    return file.with_name(f"{stem}_appearance_feat.h5"), file.with_name(f"{stem}_motion_feat.h5")


def check_ids(video_ids: Iterable[str]) -> None:
    """Refuse ids that HDF5 files of this layout cannot hold.

    Raises:
        DataError: a video id is not a whole number.
    """
    strange = [video for video in video_ids if not (video.isascii() and video.isdigit())]
    if strange:
        raise DataError(
            f"HDF5 files number the videos, but {len(strange)} ids are not whole numbers, "
            f"the first is {strange[0]!r}; extract without HDF5 files and read the store"
        )


def write_hdf5(store: Store, file: Path) -> tuple[Path, Path]:
    """Write a feature store as the two files that DualVGR and HCRN read; return their paths.

    Raises:
        DataError: a video id is not a whole number.
    """
    check_ids(store.video_ids)
    appearance, motion = hdf5_paths(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    for path, part, name in ((appearance, "appearance", APPEARANCE), (motion, "motion", MOTION)):
        with written_aside(path) as aside, h5py.File(aside, "w") as data:
            shape = store.spec.arrays[part].shape
            # float32 whatever the store holds: the programs that read this expect it.
            rows = data.create_dataset(name, (len(store), *shape), np.float32)
            for row, video in enumerate(store.video_ids):
                rows[row] = store.read(video)[part]
            data.create_dataset(IDS, data=np.array(store.video_ids, dtype=np.int64))
    return appearance, motion
