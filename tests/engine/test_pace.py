"""Lines on speed: what was reached, what could be, the quotient, and which side limits."""

import time

import pytest

from msvqa.data.medium import Medium
from msvqa.data.processors.processor import processor_of, store_spec
from msvqa.data.store import Store
from msvqa.engine.ingest import ShardJob, ShardWriter
from msvqa.engine.pace import (
    ExtractionClock,
    ExtractionPace,
    StagePace,
    Written,
    keep_pace,
    kept_pace,
)
from tests import barcode_video
from tests.tiny import make_recipe


def row(**numbers) -> dict:
    usual = {"kind": "train", "workers": 2, "questions_per_s": 70.0, "waiting": 0.02}
    return usual | {"tflops": 0.04, "share_of_peak": 0.4} | numbers


def test_a_stage_says_medians_of_its_rows_and_the_share_of_what_doctor_measured():
    rows = [row(questions_per_s=rate) for rate in (10.0, 70.0, 80.0)]
    rows += [{"kind": "validation", "workers": 9, "questions_per_s": 1e6}]
    assert StagePace.of(rows).line("answer", "bf16", 0.4) == (
        "speed of stage answer: 70 examples/s on 2 workers; waiting for data 2% of the time; "
        "0.04 TFLOP/s a worker, 40% of its best bf16 matrix product; 20% of the machine's 0.4 as "
        "doctor measured it; computing limits"
    )


def test_where_nothing_was_measured_the_line_says_how_to():
    line = StagePace.of([row(waiting=0.3)]).line("answer", "fp32", None)
    assert "`msvqa doctor --speed RECIPE` measures" in line
    assert line.endswith("; data limits")


def test_rows_of_earlier_versions_have_a_pace_without_operations():
    old = {"kind": "train", "questions_per_s": 70.0, "waiting": 0.02}
    assert StagePace.of([old]).line("answer", "fp32", 1.0) == (
        "speed of stage answer: 70 examples/s on 1 worker; waiting for data 2% of the time; "
        "computing limits"
    )
    assert StagePace.of([]).line("answer", "fp32", 1.0).endswith("no step was logged")


def test_numbers_are_plain():
    line = StagePace.of([row(questions_per_s=1183.6, tflops=0.0000456)]).line("a", "fp32", 1e5)
    assert "1184 examples/s" in line
    assert "0.0000456 TFLOP/s" in line
    assert "the machine's 100000 as" in line


def test_idle_decoders_are_said_where_there_are_some():
    rows = [row(decoders_idle=share) for share in (0.2, 0.4, 0.9)]
    assert "; decoders idle 40% of theirs; " in StagePace.of(rows).line("a", "fp32", None)
    assert "idle" not in StagePace.of([row()]).line("a", "fp32", None)


def test_rows_of_compiled_steps_are_left_out():
    slow = row(questions_per_s=0.01, compiling=1)
    assert StagePace.of([slow, slow, row()]).examples_per_s == 70.0
    assert StagePace.of([slow]).examples_per_s == 0.01, "there is no other"


SPENT = {"reading": 1.0, "decoding": 10.0, "computing": 4.0, "writing": 1.0}


def pace(**changes) -> ExtractionPace:
    usual = {"media": 40, "workers": 2, "starting_s": 3.0, "wall_s": 10.0, "spent_s": SPENT}
    return ExtractionPace(**(usual | {"driver_idle": 0.9, "ended_at": ""} | changes))


def test_an_extraction_says_where_the_time_of_its_workers_went():
    assert pace().shares["idle"] == pytest.approx(0.2)
    assert pace().line(5.0) == (
        "speed of extraction: 4 media/s on 2 workers (reading 5%, decoding 50%, computing 20%, "
        "writing 5%, idle 20%); 80% of the machine's 5 as doctor measured it; decoding limits"
    )
    assert "`msvqa doctor --speed RECIPE` measures" in pace().line(None)
    assert pace(spent_s=SPENT | {"computing": 30.0}).limit == "computing"


def test_the_clock_of_an_extraction_leaves_out_the_time_until_the_first_began():
    clock = ExtractionClock(workers=2)
    assert clock.pace(0) is None, "nothing was done"

    def shards():
        time.sleep(0.2)
        for number in range(2):
            time.sleep(0.1)
            yield Written(shard=number, began=time.time() - 0.1, spent_s=SPENT)

    for written in clock.waited(shards()):
        clock.add(written)
        time.sleep(0.1)
    found = clock.pace(8)
    assert found.starting_s == pytest.approx(0.2, abs=0.09)
    assert 0.3 < found.wall_s < 5.0
    assert found.driver_idle == pytest.approx(0.4 / (found.starting_s + found.wall_s), abs=0.15)
    assert found.spent_s == {kind: 2 * seconds for kind, seconds in SPENT.items()}


def test_a_worker_says_where_its_time_went(tmp_path):
    video = barcode_video.write(tmp_path / "a.avi", 12)
    recipe, store = make_recipe(tmp_path), str(tmp_path / "store")
    media = [Medium("a", str(video)), Medium("b", str(tmp_path / "absent.avi"))]
    job = ShardJob(processor_of(recipe), store, store_spec(recipe).to_dict(), {}, {0: media})
    writer, start = ShardWriter(job), time.perf_counter()
    found = writer(0)
    whole = time.perf_counter() - start
    spent = {kind: float(found[kind][0]) for kind in SPENT}
    assert all(seconds > 0 for seconds in spent.values())
    assert sum(spent.values()) == pytest.approx(whole, rel=0.05)
    assert spent["decoding"] > spent["computing"]
    assert writer(0)["decoding"][0] < whole, "of one shard, not of all so far"


def test_a_store_keeps_how_fast_it_was_extracted(tiny, tmp_path):
    store = Store.open(make_recipe(tiny).data.prepared + "/clips-2x4-32px")
    assert kept_pace(store) is None, "made without Ray"
    keep_pace(store.location, pace())
    assert kept_pace(store) == pace()
    (store.path / "speed.json").write_text('{"format": 9}', encoding="utf-8")
    assert kept_pace(store) is None
    (store.path / "speed.json").unlink()
