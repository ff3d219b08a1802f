"""Does distillation help? Recall at 1 of evaluated runs of UMT, and how far apart they are.

python -m benchmarks.distillation --distilled RUN ... --random RUN ... --shuffled RUN ...

One run of each kind for every seed, in the order of the seeds, each with `msvqa evaluate RUN` done;
`configs/search/distillation.yaml` says which runs these are. Prints a table: recall at 1 of the
video for a caption, and differences. Intervals (95 %) draw whole videos, whose captions share their
pixels, with all seeds of a video together.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from msvqa.metrics import interval_by_video

KINDS = ("distilled", "random", "shuffled")
LEADS = {"random": 0.05, "shuffled": 0.15}
"""By how much the distilled student should lead."""
BACKWARDS = 0.12
"""How much playing the videos backwards should cost it."""

# Legend: S seeds, n captions.


def read(run: str, evaluation: str = "test") -> dict[tuple[str, str], bool]:
    """Return whether the right video is the nearest, by caption and name of the video."""
    table = pq.read_table(Path(run) / "evaluate" / evaluation / "predictions.parquet")
    rows = table.select(["caption", "medium", "text_to_video_rank"]).to_pylist()
    return {(r["caption"], Path(r["medium"]).name): r["text_to_video_rank"] == 1 for r in rows}


def aligned(found: Sequence[Mapping[tuple[str, str], bool]]) -> tuple[np.ndarray, np.ndarray]:
    """Return (S, n) whether each is right, and the video (n,) of each caption.

    Raises:
        SystemExit: the runs were not asked the same captions.
    """
    keys = sorted(found[0])
    if any(sorted(one) != keys for one in found):
        raise SystemExit("these runs were evaluated on other captions: evaluate all on one set")
    right = np.array([[one[key] for key in keys] for one in found], dtype=np.float64)
    return right, np.array([video for _, video in keys])


def line(name: str, values: np.ndarray, video: np.ndarray, target: str = "") -> str:
    """Return a row of the table: the mean, its interval, the mean of each seed."""
    low, high = interval_by_video(values.mean(axis=0), video)
    seeds = ", ".join(f"{value:.3f}" for value in values.mean(axis=1))
    return f"| {name} | {values.mean():.3f} | {low:.3f} to {high:.3f} | {seeds} | {target} |"


def table(runs: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the rows of the table."""
    everything = [read(run) for kind in KINDS for run in runs[kind]]
    turned = [read(run, "backwards") for run in runs["distilled"]]
    right, video = aligned([*everything, *turned])
    seeds = len(runs["distilled"])
    distilled, random, shuffled, backwards = np.split(right, [seeds, 2 * seeds, 3 * seeds])
    arms = {"random": random, "shuffled": shuffled}
    return [
        "| recall at 1, text to video | mean | interval | each seed | target |",
        "|---|---|---|---|---|",
        line("from the distilled student", distilled, video),
        line("from a random student", random, video),
        line("frames shuffled in time", shuffled, video),
        line("distilled, test played backwards", backwards, video),
        *(
            line(f"distilled - {name}", distilled - arms[name], video, f">= {lead}")
            for name, lead in LEADS.items()
        ),
        line("distilled - backwards", distilled - backwards, video, f">= {BACKWARDS}"),
    ]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distillation")
    for kind in KINDS:
        parser.add_argument(f"--{kind}", nargs="+", required=True, metavar="RUN")
    runs = vars(parser.parse_args())
    if len({len(runs[kind]) for kind in KINDS}) != 1:
        parser.error("as many runs of each kind are needed, one for each seed")
    sys.stdout.write("\n".join(table(runs)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
