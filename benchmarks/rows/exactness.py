"""D3, D4: the frames that were asked for, like Pillow's, and the outcomes of damaged files."""

import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.measure import Count, Fact
from benchmarks.reference.reading import read_all_with_pillow
from benchmarks.rows.decoding import FRAMES, PLAN, VIDEOS, drawn
from benchmarks.rows.setting import Finding, Setting
from msvqa.data.video import decode, probe
from tests import barcode_video

LIMIT_S = 5.0


def planned_frames(setting: Setting) -> list[Finding]:
    """Return D3: wrong frames of every container, and the likeness of every kind of video."""
    count = setting.size(FRAMES, 24)
    found: list[Finding] = []
    for kind in barcode_video.KINDS:
        path = barcode_video.write(setting.folder / f"exact-{kind}", count, kind)
        name = f"D3 wrong of {PLAN(count).size}, {kind}"
        found.append(Count(name, wrong_frames(path, count), "== 0"))
    for video in VIDEOS:
        path = drawn(setting.folder, video, count)
        found.append(Count(f"D3 PSNR to Pillow, dB, {video}", likeness(path), ">= 60"))
    return found


def wrong_frames(path: Path, count: int, decoder: str = "pyav") -> int:
    """Return how many of the planned frames of a barcode video show another number."""
    frames = decode(path, PLAN, [128], decoder).frames[128].reshape(-1, 128, 128, 3)
    return count_wrong(frames, PLAN(count).ravel())


def count_wrong(frames: np.ndarray, expected: np.ndarray) -> int:
    """Return how many frames show another number than the one expected."""
    shown = np.array([barcode_video.read(frame) for frame in frames])
    return int((shown != expected).sum())


def likeness(path: Path) -> float:
    """Return the PSNR of ours to Pillow's bicubic filter in dB."""
    ours = decode(path, PLAN, [224]).frames[224].astype(float)
    theirs = read_all_with_pillow(path, PLAN, 224).reshape(ours.shape)
    return round(float(10 * np.log10(255**2 / ((ours - theirs) ** 2).mean())), 1)


def damaged_files(setting: Setting) -> list[Finding]:
    """Return D4: how many files have another outcome than theirs, and how long the slowest took."""
    files = damaged(setting.folder)
    wrong, slowest = {}, 0.0
    for path, expected in files.items():
        start = time.perf_counter()
        found = probe(path).outcome
        slowest = max(slowest, time.perf_counter() - start)
        if found != expected:
            wrong[path.name] = f"{found}, not {expected}"
    return [
        Count(f"D4 other outcomes of {len(files)} damaged files", len(wrong), "== 0"),
        Count("D4 seconds for the slowest", round(slowest, 2), f"<= {LIMIT_S}"),
        *(Fact(f"D4 {name}", said) for name, said in wrong.items()),
    ]


def damaged(folder: Path) -> dict[Path, str]:
    """Write files that are damaged in one way each; return the outcome that each must have."""
    avi = barcode_video.write(folder / "whole.avi", 60).read_bytes()
    mp4 = barcode_video.write(folder / "whole.mp4", 60, "h264_bframes.mp4").read_bytes()
    contents = {
        "cut.avi": (avi[: len(avi) * 6 // 10], "partial"),
        "cut_without_index.mp4": (mp4[: len(mp4) // 2], "unreadable"),
        "empty.avi": (b"", "unreadable"),
        "text.avi": (b"no video, but a line of text\n" * 40, "unreadable"),
        "header_alone.avi": (avi[:256], "unreadable"),
    }
    outcomes = {}
    for name, (content, outcome) in contents.items():
        (folder / name).write_bytes(content)
        outcomes[folder / name] = outcome
    outcomes[_sound(folder / "sound.mp4")] = "no_video_stream"
    outcomes[barcode_video.write(folder / "one_frame.avi", 1)] = "ok"
    return outcomes


def _sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        for number in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 16_000, 1024 * number
            frame.time_base = Fraction(1, 16_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
