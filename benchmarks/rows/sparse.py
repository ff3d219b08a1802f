"""D5: a few frames of a long video against decoding all of them in sequence."""

import numpy as np

from benchmarks.measure import Count, ratio
from benchmarks.reference.reading import pick_in_sequence
from benchmarks.rows.setting import Finding, Setting
from msvqa.data.medium import Medium
from msvqa.data.video import View, look
from tests import barcode_video

FRAMES, WANTED = 3600, 8
SETTINGS = {"g": "60", "keyint_min": "60", "sc_threshold": "0", "preset": "veryfast", "bf": "2"}


def spread(times: np.ndarray) -> np.ndarray:
    """Return the numbers of a few frames, the middles of equal parts."""
    chosen: np.ndarray = ((np.arange(WANTED) + 0.5) * len(times) / WANTED).astype(np.int64)
    return chosen


def few_frames(setting: Setting) -> list[Finding]:
    """Return D5: the cost of all frames over that of ours, and pixels that differ."""
    count = setting.size(FRAMES, 150)
    path = barcode_video.encode(setting.folder / "long.mp4", count, "libx264", SETTINGS)
    # At full size, so that pixels can be compared without a filter.
    view = View(choose=spread, size_px=barcode_video.WIDTH, fit="whole")
    medium, numbers = Medium("long"), spread(np.empty(count))

    def ours() -> np.ndarray:
        return look(path, medium, view).frames[view.size_px]

    costs = setting.measure({"all": lambda: pick_in_sequence(path, numbers), "ours": ours})
    differing = int((ours() != pick_in_sequence(path, numbers)).sum())
    name = f"D5 all in sequence / ours, {WANTED} of {count} frames"
    return [
        Count("D5 values of pixels that differ", differing, "== 0"),
        ratio(name, costs, "all", "ours", ">= 8"),
    ]
