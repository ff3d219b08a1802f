"""D1, D2: our clips against reading everything with Pillow, and against decoding alone."""

from functools import partial
from pathlib import Path

from benchmarks.measure import Ratio, ratio
from benchmarks.reference.reading import read_all_with_pillow
from benchmarks.rows.setting import Costs, Finding, Setting
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
    """Return D1 and D2 of every kind of video."""
    found: list[Finding] = []
    for name in VIDEOS:
        path = drawn(setting.folder, name, setting.size(FRAMES, 30))
        found += compared(name, costs_of(path, setting))
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
        }
    )


def compared(name: str, costs: Costs) -> list[Ratio]:
    """Return the ratios of one video; other files than `VIDEOS` have no targets."""
    first, second = VIDEOS[name][2:] if name in VIDEOS else ("", "")
    return [
        ratio(f"D1 read all + Pillow / ours, {name}", costs, "pillow", "pyav", first),
        ratio(f"D2 ours / decoding alone, {name}", costs, "pyav", "decoding alone", second),
    ]
