"""Decoding: our clips against reading everything with Pillow, and against decoding alone.

python -m benchmarks.decoding [--clips FOLDER]
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.measure import Ratio, measure, pin_to_one_core, ratio, write
from msvqa.data.readers import DECODERS
from msvqa.data.sampling import sample_clips
from msvqa.data.video import IsolatedDecoder, decode, probe
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


def read_all_with_pillow(path: Path) -> list[np.ndarray]:
    """Convert every frame to RGB, then resize the planned ones; anew for each size, as DualVGR."""
    clips = []
    for size in SIZES:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "SLICE"
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        shape, bicubic = (size, size), Image.Resampling.BICUBIC
        clips.append(
            np.stack(
                [
                    np.asarray(Image.fromarray(frames[i]).resize(shape, bicubic))
                    for i in PLAN(len(frames)).ravel()
                ]
            )
        )
    return clips


def compare(name: str, path: Path, targets: tuple[str, str]) -> list[Ratio]:
    """Return the ratios of one video."""
    costs = measure(
        {
            "pillow": lambda: read_all_with_pillow(path),
            "pyav": lambda: decode(path, PLAN, SIZES),
            "decord": lambda: decode(path, PLAN, SIZES, "decord"),
            "decoding alone": lambda: probe(path),
        }
    )
    return [
        ratio(f"D1 read all + Pillow / ours, {name}", costs, "pillow", "pyav", targets[0]),
        ratio(f"D2 ours / decoding alone, {name}", costs, "pyav", "decoding alone", targets[1]),
        ratio(f"decord back end / PyAV back end, {name}", costs, "decord", "pyav"),
    ]


def isolation(path: Path) -> Ratio:
    """Return what the child process costs, with its start left out."""
    decoder = IsolatedDecoder()
    # Several calls, since the clock of a child has steps of 10 ms.
    costs = measure(
        {
            "isolated": lambda: [decoder(path, PLAN, SIZES) for _ in range(5)],
            "direct": lambda: [decode(path, PLAN, SIZES) for _ in range(5)],
        }
    )
    decoder.close()
    return ratio("in a child process / in this one, mpeg4 320", costs, "isolated", "direct")


def wrong_frames(folder: Path) -> dict[str, str]:
    """Return how many of the planned frames show another number, for every container."""
    found = {}
    for kind in barcode_video.KINDS:
        path = barcode_video.write(folder / f"exact-{kind}", FRAMES, kind)
        expected = PLAN(FRAMES).ravel()
        for decoder in DECODERS:
            frames = decode(path, PLAN, [128], decoder).frames[128].reshape(-1, 128, 128, 3)
            shown = np.array([barcode_video.read(frame) for frame in frames])
            wrong = int((shown != expected).sum())
            found[f"D3 wrong of {len(shown)}, {kind}, {decoder}, read in sequence"] = str(wrong)
        found[f"wrong of {len(expected)}, {kind}, decord get_batch"] = _wrong_by_seeking(path)
    return found


def _wrong_by_seeking(path: Path) -> str:
    import decord

    try:
        video = decord.VideoReader(str(path), num_threads=1)
        frames = video.get_batch(PLAN(FRAMES).ravel()).asnumpy()
    except Exception as error:  # two unrelated classes, and the comparison goes on
        return f"raises {type(error).__name__}"
    shown = np.array([barcode_video.read(frame) for frame in frames])
    return str(int((shown != PLAN(FRAMES).ravel()).sum()))


def likeness(path: Path) -> float:
    """Return the PSNR of ours to Pillow's bicubic filter in dB."""
    ours = decode(path, PLAN, SIZES).frames[224].astype(float)
    theirs = read_all_with_pillow(path)[0].reshape(ours.shape)
    return float(10 * np.log10(255**2 / ((ours - theirs) ** 2).mean()))


def main() -> int:
    """Run, write the results, and fail where a frame is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, help="also measure the videos of this folder")
    arguments = parser.parse_args()
    pin_to_one_core()
    ratios, facts = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for video, (kind, scale, *targets) in VIDEOS.items():
            path = barcode_video.write(folder / f"{scale}-{kind}", FRAMES, kind, scale)
            ratios += compare(video, path, (targets[0], targets[1]))
            facts[f"D3 PSNR to Pillow, dB, {video}"] = f"{likeness(path):.1f}"
        ratios.append(isolation(folder / "1-mpeg4_bframes.avi"))
        facts |= wrong_frames(folder)
        for path in sorted(arguments.clips.glob("*")) if arguments.clips else []:
            if probe(path).num_frames >= 100:
                ratios += compare(path.name, path, ("", ""))
    table = write("decoding", ratios, facts)
    sys.stdout.write(table.read_text(encoding="utf-8"))
    wrong = [key for key, value in facts.items() if "in sequence" in key and value != "0"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
