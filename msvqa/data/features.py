"""Feature files in the one-file layout of DualVGR and HCRN (HDF5): reading and writing.

Appearance: `resnet_features` (videos, clips, frames, width). Motion: `resnext_features`
(videos, clips, width). Both: `ids` (videos,), whole numbers; rows are in any order.
"""

import contextlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from msvqa.data.store import Arrays, Store
from msvqa.errors import DataError
from msvqa.recipe import ClipsConfig, FeaturesConfig, Recipe

APPEARANCE, MOTION, IDS = "resnet_features", "resnext_features", "ids"


class FeatureFiles:
    """Two feature files, read one video at a time, with their shapes checked against the recipe."""

    def __init__(self, features: FeaturesConfig, clips: ClipsConfig) -> None:
        self._features = features
        self._clips = clips

    def __contains__(self, video_id: str) -> bool:
        return all(video_id in ids for _, ids in (self._appearance, self._motion))

    def __repr__(self) -> str:
        return f"{self._features.appearance_hdf5} and {self._features.motion_hdf5}"

    def check(self) -> None:
        """Open both files.

        Raises:
            DataError: a file that is no feature file, or of other shapes than the recipe says.
        """
        _ = self._appearance, self._motion

    def read(self, video_id: str) -> Arrays:
        """Return appearance and motion of a video.

        Raises:
            DataError: a file has no row for it, or as `check`.
        """
        if video_id not in self:
            raise DataError(f"no row for video {video_id} in {self}")
        (frames, frame_rows), (clips, clip_rows) = self._appearance, self._motion
        appearance = frames[frame_rows[video_id]]  # (C, F, D)
        motion = clips[clip_rows[video_id]]  # (C, D) or (C, D·P)
        if self._features.pool_motion:
            # An unpooled map, channels first: the mean over its positions.
            motion = motion.reshape(len(motion), self._features.motion_width, -1).mean(axis=-1)
        kind = self._features.dtype
        return {"appearance": appearance.astype(kind), "motion": motion.astype(kind)}

    @cached_property
    def _appearance(self) -> tuple[h5py.Dataset, dict[str, int]]:
        clips, width = self._clips, self._features.appearance_width
        shape = (clips.num_clips, clips.frames_per_clip, width)
        return self._open(self._features.appearance_hdf5, (APPEARANCE,), shape)

    @cached_property
    def _motion(self) -> tuple[h5py.Dataset, dict[str, int]]:
        shape = (self._clips.num_clips, self._features.motion_width)
        return self._open(self._features.motion_hdf5, (MOTION, APPEARANCE), shape)

    def _open(
        self, file: str | None, names: tuple[str, ...], shape: tuple[int, ...]
    ) -> tuple[h5py.Dataset, dict[str, int]]:
        try:
            data = h5py.File(str(file), "r")
        except OSError as error:
            raise DataError(f"{file}: no HDF5 file ({error})") from None
        name = next((name for name in names if name in data), None)
        if name is None or IDS not in data:
            found = ", ".join(data)
            raise DataError(f"{file}: wants {' or '.join(names)} and {IDS}, it has {found}")
        _check_shape(f"{file}: {name}", data[name], shape, self._features.pool_motion)
        ids = [str(int(video)) for video in data[IDS][:]]
        if len(ids) != len(data[name]) or len(set(ids)) < len(ids):
            raise DataError(f"{file}: {IDS} are not one different number for each row")
        return data[name], {video: row for row, video in enumerate(ids)}


def _check_shape(what: str, data: h5py.Dataset, shape: tuple[int, ...], unpooled: bool) -> None:
    found = data.shape[1:]
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
    raise DataError(f"{what} has rows of shape {found}, the recipe says {shape}; {advice}")


def feature_files(recipe: Recipe) -> FeatureFiles | None:
    """Return the feature files that a recipe names; None where it reads videos."""
    if recipe.features is None or recipe.reads_videos:
        return None
    return FeatureFiles(recipe.features, recipe.clips)


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
        with _written_aside(path) as data:
            shape = store.spec.arrays[part].shape
            # float32 whatever the store holds: the programs that read this expect it.
            rows = data.create_dataset(name, (len(store), *shape), np.float32)
            for row, video in enumerate(store.video_ids):
                rows[row] = store.read(video)[part]
            data.create_dataset(IDS, data=np.array(store.video_ids, dtype=np.int64))
    return appearance, motion


@contextlib.contextmanager
def _written_aside(path: Path) -> Iterator[h5py.File]:
    aside = path.with_name(f".{path.name}.part")
    with h5py.File(aside, "w") as data:
        yield data
    aside.replace(path)
