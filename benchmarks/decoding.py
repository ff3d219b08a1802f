"""Decoding: our clips against reading everything with Pillow, and against decoding alone.

python -m benchmarks.decoding [--clips FOLDER]

Rows D1 to D3 of `python -m benchmarks`, with what they leave out: the back end decord, frames by
their number, the child process, and videos of one's own.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Ratio, measure, pin_to_one_core, ratio, write
from benchmarks.rows.decoding import FRAMES, PLAN, SIZES, VIDEOS, compared, costs_of, drawn
from benchmarks.rows.exactness import count_wrong, likeness, wrong_frames
from benchmarks.rows.setting import Setting
from msvqa.data.nvdec_needs import lacking
from msvqa.data.readers import DECODERS
from msvqa.data.video import IsolatedDecoder, decode, probe
from tests import barcode_video

BACK_ENDS = [name for name in DECODERS if name != "nvdec" or not lacking()]
"""Those that this machine has what they need for."""


def compare(name: str, path: Path) -> list[Ratio]:
    """Return the ratios of one video, those of all back ends among them."""
    back_ends = measure(
        {
            decoder: lambda decoder=decoder: decode(path, PLAN, SIZES, decoder)
            for decoder in BACK_ENDS
        }
    )
    others = [decoder for decoder in BACK_ENDS if decoder != "pyav"]
    return [
        *compared(name, costs_of(path, Setting(folder=path.parent))),
        *(ratio(f"{o} back end / PyAV back end, {name}", back_ends, o, "pyav") for o in others),
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


def all_wrong_frames(folder: Path) -> dict[str, str]:
    """Return how many of the planned frames show another number, for every container."""
    found, planned = {}, PLAN(FRAMES).size
    for kind in barcode_video.KINDS:
        path = barcode_video.write(folder / f"exact-{kind}", FRAMES, kind)
        for decoder in BACK_ENDS:
            wrong = str(wrong_frames(path, FRAMES, decoder))
            found[f"D3 wrong of {planned}, {kind}, {decoder}, read in sequence"] = wrong
        found[f"wrong of {planned}, {kind}, decord get_batch"] = _wrong_by_seeking(path)
    return found


def _wrong_by_seeking(path: Path) -> str:
    import decord

    try:
        video = decord.VideoReader(str(path), num_threads=1)
        frames = video.get_batch(PLAN(FRAMES).ravel()).asnumpy()
    except Exception as error:  # two unrelated classes, and the comparison goes on
        return f"raises {type(error).__name__}"
    return str(count_wrong(frames, PLAN(FRAMES).ravel()))


def main() -> int:
    """Run, write the results, and fail where a frame is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, help="also measure the videos of this folder")
    arguments = parser.parse_args()
    pin_to_one_core()
    ratios, facts = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {video: drawn(folder, video) for video in VIDEOS}
        for video, path in paths.items():
            ratios += compare(video, path)
            facts[f"D3 PSNR to Pillow, dB, {video}"] = f"{likeness(path):.1f}"
        ratios.append(isolation(paths["mpeg4 320"]))
        facts |= all_wrong_frames(folder)
        for path in sorted(arguments.clips.glob("*")) if arguments.clips else []:
            if probe(path).num_frames >= 100:
                ratios += compare(path.name, path)
    table = write("decoding", ratios, facts)
    sys.stdout.write(table.read_text(encoding="utf-8"))
    wrong = [key for key, value in facts.items() if "in sequence" in key and value != "0"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
