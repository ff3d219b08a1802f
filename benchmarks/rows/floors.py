"""Minimum rates: half of what was measured, as ratios to a yardstick of the same run.

A ratio beyond its minimum means that something has become twice as slow, on whatever machine: both
sides of a ratio feel that machine and its load alike.
"""

from collections.abc import Mapping, Sequence

from benchmarks.measure import Ratio, is_met
from benchmarks.rows.setting import Finding

FLOORS: Mapping[str, str] = {
    "D1 read all + Pillow / ours, mpeg4 320": ">= 1.6",
    "D1 read all + Pillow / ours, h264 320": ">= 1.5",
    "D1 read all + Pillow / ours, h264 640": ">= 1.8",
    "D2 ours / decoding alone, mpeg4 320": "<= 6.4",
    "D2 ours / decoding alone, h264 320": "<= 2.8",
    "D2 ours / decoding alone, h264 640": "<= 3.9",
    "D5 all in sequence / ours, 8 of 3600 frames": ">= 5.7",
    "C1 decode / read into a buffer, 100 px": ">= 85",
    "L1 HDF5 opened for each question / ours, random": ">= 9.6",
    "L1 HDF5 opened for each question / ours, 8 questions per video": ">= 65",
    "L2 ours, grouped / memcpy of the same bytes": "<= 2.3",
}
"""By name of the ratio, for rows that take seconds"""


def beyond(findings: Sequence[Finding]) -> dict[str, str]:
    """Return what a ratio is and what it has to be, by name, for those beyond their minimum."""
    ratios = [f for f in findings if isinstance(f, Ratio) and f.name in FLOORS]
    return {
        f.name: f"{f.median:.3g}, not {FLOORS[f.name]}"
        for f in ratios
        if not is_met(f.median, FLOORS[f.name])
    }
