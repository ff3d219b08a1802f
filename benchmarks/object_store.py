"""How much of Ray's object store a stream of pixels fills, by the number of its videos.

python -m benchmarks.object_store [--videos N]

Pixels are decoded while steps run, as with `cache: none`. A step takes twice as long as a decoder
for its video, so that the decoder works as far ahead as Ray Data lets it; then a second stream
runs beside one that waits, as those of two workers do. The store may not hold more after 2,000
videos than after 200, and of neither more than a share that is not the whole.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks.full_shape.process_tree import object_store_bytes
from benchmarks.full_shape.table import STORE_SHARE
from benchmarks.measure import write
from msvqa.data.medium import Medium
from msvqa.data.processors.clips import Clips
from msvqa.engine import cluster
from tests import barcode_video

VIDEOS, FRAMES = 2000, 300
LOOKS = (50, 100, 200, 500, 1000, 2000)
"""After how many videos the store is looked at"""
FIRST = 200
MAY_GROW = 1.1
STEP_S = 0.12


def held_by(media: Sequence[Medium], raylet: int) -> Iterator[tuple[int, int]]:
    """Give each video of a stream a step; yield at some what the store has held at most, bytes."""
    from msvqa.engine.ingest import stream_media

    for made in stream_media(media, Clips(Clips.Config()), workers=1):
        assert made.arrays is not None, made.error
        time.sleep(STEP_S)
        if made.index + 1 in (*LOOKS, len(media)):
            yield made.index + 1, object_store_bytes(raylet)


def run(videos: int, folder: Path) -> tuple[dict[str, str], bool]:
    """Stream videos; return what the store has held as facts, and whether it is bounded."""
    path = barcode_video.write(folder / "video.avi", FRAMES)
    media = [Medium(str(number), str(path)) for number in range(videos)]
    facts: dict[str, str] = {}
    with cluster.connected():
        (raylet,) = (
            p.pid for p in psutil.Process().children(recursive=True) if p.name() == "raylet"
        )
        held: dict[int, int] = {}
        for count, size in held_by(media, raylet):
            held[count] = size
            facts[f"MB held after {count} videos"] = f"{size / 1e6:.0f}"
        outer = held_by(media, raylet)
        next(outer)  # it is under way, and waits
        *_, (_, most) = held_by(media[:FIRST], raylet)
        outer.close()
    facts[f"MB held with a second stream of {FIRST}"] = f"{most / 1e6:.0f}"
    first, last = held[min(FIRST, videos)], held[videos]
    facts["MB of the store"] = f"{cluster.OBJECT_STORE_BYTES / 1e6:.0f}"
    facts[f"grown from {FIRST} videos to {videos}"] = f"{last / first:.2f} times"
    share = STORE_SHARE * cluster.OBJECT_STORE_BYTES
    is_bounded = last <= MAY_GROW * first and max(last, most) <= share
    return facts, is_bounded


def main() -> int:
    """Measure and write the table; 1 where the store grows with the videos."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.object_store")
    parser.add_argument("--videos", type=int, default=VIDEOS)
    videos = parser.parse_args().videos
    if videos < FIRST:
        parser.error(f"--videos {videos}: {FIRST} or more, which are compared with all")
    with tempfile.TemporaryDirectory(prefix="msvqa-store-") as name:
        facts, is_bounded = run(videos, Path(name))
    facts["verdict"] = "bounded" if is_bounded else "GROWS"
    sys.stdout.write(write("object_store", [], facts).read_text(encoding="utf-8"))
    return int(not is_bounded)


if __name__ == "__main__":
    sys.exit(main())
