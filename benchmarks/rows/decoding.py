"""D1, D2: our clips against reading everything with Pillow, and against decoding alone."""

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import Fact, Ratio, ratio
from benchmarks.reference.reading import read_all_with_pillow
from benchmarks.rows.setting import Costs, Finding, Setting
from msvqa.data.readers import open_reader
from msvqa.data.sampling import sample_clips
from msvqa.data.video import decode, probe
from tests import barcode_video

SIZES = (224, 112)
PLAN = partial(sample_clips, num_clips=8, frames_per_clip=16)
FRAMES = 300
VIDEOS = {
    # Name: kind and scale of a generated video, targets of D1 and D2.
    "mpeg4 320": ("mpeg4_bframes.avi", 1, ">= 3.0", "<= 5"),
    "h264 320": ("h264_bframes.mp4", 1, ">= 3.0", "<= 2.1"),
    "h264 640": ("h264_bframes.mp4", 2, ">= 3.5", "<= 1.75"),
}


def speeds(setting: Setting) -> list[Finding]:
    """Return D1 and D2 of every kind of video, and what is left of D1."""
    found: list[Finding] = []
    for name in VIDEOS:
        path = drawn(setting.folder, name, setting.size(FRAMES, 30))
        costs = costs_of(path, setting)
        found += [*compared(name, costs), *limits(name, costs)]
    return found


def drawn(folder: Path, name: str, frames: int = FRAMES) -> Path:
    """Write one of `VIDEOS`."""
    kind, scale, *_ = VIDEOS[name]
    return barcode_video.write(folder / f"{scale}-{kind}", frames, kind, scale)


def costs_of(path: Path, setting: Setting) -> Costs:
    """Measure the ways to read a video's clips in both sizes."""
    return setting.measure(
        {
            "pillow": lambda: [read_all_with_pillow(path, PLAN, size) for size in SIZES],
            "pyav": lambda: decode(path, PLAN, SIZES),
            "decoding alone": lambda: probe(path),
            "without resizing": lambda: _in_rgb(path),
        }
    )


def _in_rgb(path: Path) -> list[np.ndarray]:
    """Do what ours does before it resizes: decode and keep all frames, make those planned RGB."""
    reader = open_reader(path)
    frames = list(reader.frames())
    return [reader.to_rgb(frames[number]) for number in np.unique(PLAN(len(frames))).tolist()]


def compared(name: str, costs: Costs) -> list[Ratio]:
    """Return the ratios of one video; other files than `VIDEOS` have no targets."""
    first, second = VIDEOS[name][2:] if name in VIDEOS else ("", "")
    return [
        ratio(f"D1 read all + Pillow / ours, {name}", costs, "pillow", "pyav", first),
        ratio(f"D2 ours / decoding alone, {name}", costs, "pyav", "decoding alone", second),
    ]


def limits(name: str, costs: Costs) -> list[Fact]:
    """Return the D1 of a reader to which all but decoding is free, and where the time of ours goes.

    Frames are exact only where all are decoded, so no way to read these videos gets further.
    """
    most = ratio(name, costs, "pillow", "decoding alone")
    decoded = ratio(name, costs, "decoding alone", "pyav").median
    in_rgb = ratio(name, costs, "without resizing", "pyav").median
    shares = (decoded, in_rgb - decoded, 1 - in_rgb)
    return [
        Fact(
            f"D1 read all + Pillow / decoding alone, {name}",
            f"{most.median:.2f} ({most.low:.2f} to {most.high:.2f})",
        ),
        Fact(
            f"D1 share of ours: decoding, keeping and conversion, resizing, {name}",
            ", ".join(f"{share:.0%}" for share in shares),
        ),
    ]
