"""The comparison of distilled and random students: means, differences, and runs that do not fit."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.distillation import KINDS, table


def write_run(folder, ranks, evaluation="test", captions=("a", "b")):
    """Write the predictions of a run: two captions for each of two videos."""
    place = folder / "evaluate" / evaluation
    place.mkdir(parents=True)
    start = "videos" if evaluation == "test" else evaluation
    media = [f"{start}/{video}.avi" for video in (0, 0, 1, 1)]
    rows = {"medium": media, "caption": [*captions] * 2, "text_to_video_rank": ranks}
    pq.write_table(pa.table(rows), place / "predictions.parquet")
    return str(folder)


def runs_of(folder, **other):
    ranks = {"distilled": [1.0, 1.0, 1.0, 2.0], "random": [1.0, 2.0, 1.0, 3.0]}
    runs = {
        kind: [write_run(folder / kind, ranks.get(kind, [2.0] * 4), **other.get(kind, {}))]
        for kind in KINDS
    }
    write_run(folder / "distilled", [4.0, 1.0, 4.0, 4.0], "backwards")
    return runs


def test_differences_are_of_the_same_captions(tmp_path):
    rows = {row.split("|")[1].strip(): row for row in table(runs_of(tmp_path))[2:]}
    means = {name: float(row.split("|")[2]) for name, row in rows.items()}
    assert means == {
        "from the distilled student": 0.75, "from a random student": 0.5,
        "frames shuffled in time": 0.0, "distilled, test played backwards": 0.25,
        "distilled - random": 0.25, "distilled - shuffled": 0.75, "distilled - backwards": 0.5,
    }  # fmt: skip
    # A video where one of two captions gains, and one where none does.
    assert "| 0.000 to 0.500 |" in rows["distilled - random"]


def test_runs_that_were_asked_other_captions_are_refused(tmp_path):
    runs = runs_of(tmp_path, random={"captions": ("a", "c")})
    with pytest.raises(SystemExit, match="other captions"):
        table(runs)
