"""The speed of steps: what is timed, what is left out, and a training that does not notice."""

import re
import time

import pytest
import torch

from msvqa.data.processors.clock import Decoders
from msvqa.engine import distributed
from msvqa.engine import loop as loops
from msvqa.engine import meter as meters
from msvqa.engine.checkpoint import read_weights
from msvqa.engine.loop import train_stage
from msvqa.engine.meter import COMPILED_STEPS, Meter
from msvqa.engine.pace import COMPILING
from msvqa.engine.watchdog import Watchdog
from msvqa.run import Run
from tests.local_host import LocalHost
from tests.tiny import make_job, make_recipe

CPU = torch.device("cpu")
WEIGHTS = torch.ones(4, 6)


@pytest.fixture
def stage(tmp_path):
    return make_recipe(tmp_path).stages[0]


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when the test says so; the best product has 1000 operations a second."""

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(meters, "time", clock)
    monkeypatch.setattr(meters, "product_flops", lambda *_: 1000.0)
    return clock


def step(meter: Meter, clock, seconds: float, kind: int = 0, waited_s: float = 0.0) -> None:
    """Take a step of two equal micro batches, each of a product of 2 x 5 x 6 x 4 operations."""
    if meter.is_new(kind):
        with meter.counting(kind, 2, torch.nn.Identity()):
            torch.ones(5, 6) @ WEIGHTS.T
    clock.now += seconds
    meter.stepped(kind, 3.0, waited_s)


def test_the_step_that_is_counted_is_not_timed(stage, clock):
    meter = Meter(CPU, stage, counts=True)
    step(meter, clock, 100.0, waited_s=50.0)
    step(meter, clock, 2.0, waited_s=51.0)
    step(meter, clock, 2.0, waited_s=51.0)
    numbers = meter.end(7)
    assert numbers["questions_per_s"] == pytest.approx(6 / 4)
    assert numbers["waiting"] == pytest.approx(1 / 4)
    assert numbers["eta_s"] == pytest.approx(7 * 2)
    # 2 steps of 2 micro batches in 4 s
    assert numbers["tflops"] == pytest.approx(2 * 2 * 240 / 4 / 1e12)
    assert numbers["share_of_peak"] == pytest.approx(2 * 2 * 240 / 4 / 1000)
    # From then on all steps are timed.
    step(meter, clock, 2.0)
    assert meter.end(7)["share_of_peak"] == pytest.approx(2 * 240 / 2 / 1000)


def test_steps_of_another_kind_are_counted_as_well(stage, clock):
    meter = Meter(CPU, stage, counts=True)
    for kind in (0, 1, 0, 1):
        step(meter, clock, 1.0, kind)
    assert meter.end(0)["questions_per_s"] == pytest.approx(6 / 2)


def test_a_lap_without_a_timed_step_says_how_fast_the_counted_one_was(stage, clock):
    meter = Meter(CPU, stage, counts=True)
    step(meter, clock, 3.0)
    numbers = meter.end(0)
    assert numbers["questions_per_s"] == pytest.approx(1.0)
    assert "tflops" not in numbers and "share_of_peak" not in numbers


def test_compiled_steps_are_not_timed(stage, clock):
    meter = Meter(CPU, stage.model_copy(update={"compile": True}), counts=True)
    for _ in range(COMPILED_STEPS):
        assert meter.compiles(0)
        step(meter, clock, 100.0)
    assert not meter.compiles(0) and meter.compiles(1), "another kind has other sizes"
    step(meter, clock, 2.0)
    numbers = meter.end(5)
    assert numbers["questions_per_s"] == pytest.approx(3 / 2)
    assert numbers["eta_s"] == pytest.approx(5 * 2)
    assert COMPILING not in numbers
    step(meter, clock, 100.0, kind=1)
    assert meter.end(5)[COMPILING] == 1


def test_decoders_are_idle_where_they_are_not_busy(stage, clock):
    decoders = Decoders(workers=2, busy_s=50.0)
    meter = Meter(CPU, stage, decoders, counts=False)
    for busy_s in (6.0, 12.0, 40.0):
        decoders.busy_s += busy_s
        step(meter, clock, 10.0)
        idle = meter.end(0)["decoders_idle"]
        assert idle == pytest.approx(max(0.0, 1 - busy_s / 20)), "of this lap alone"
    assert "decoders_idle" not in Meter(CPU, stage, counts=False).end(0)


def test_compiled_steps_have_no_limit(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loops, "compile_forward", lambda *_: None)
    begun = []

    def begins(_, doing, *, limited=True):
        begun.append((doing, limited))

    monkeypatch.setattr(Watchdog, "begins", begins)
    recipe = make_recipe(tiny, f"runs={tmp_path}", "stages.0.compile=true")
    run, job = make_job(recipe, 0)
    train_stage(job, LocalHost(run.stage_dir("reconstruct")))
    limits = [
        (step, by) for doing, by in begun if (step := re.search(r"(loss|gradients) of", doing))
    ]
    assert [by for _, by in limits] == [False] * 2 * COMPILED_STEPS + [True] * 2 * 4


def test_only_the_first_worker_counts(stage, clock):
    meter = Meter(CPU, stage, counts=False)
    step(meter, clock, 3.0)
    numbers = meter.end(0)
    assert numbers["questions_per_s"] == pytest.approx(1.0)
    assert "tflops" not in numbers


def test_what_a_device_still_has_to_do_is_counted_once(tiny, tmp_path, monkeypatch):
    average, waits_s = distributed.mean_over_workers, 0.5

    def waiting(values):
        time.sleep(waits_s)
        return average(values)

    monkeypatch.setattr(distributed, "mean_over_workers", waiting)
    recipe = make_recipe(tiny, f"runs={tmp_path}", "stages.0.log_every_steps=1")
    run, job = make_job(recipe, 0)
    train_stage(job, LocalHost(run.stage_dir("reconstruct")))
    rows = [row for row in run.metrics() if row["kind"] == "train"]
    assert len(rows) > 2
    took_s = [row["eta_s"] / (row["steps"] - row["step"]) for row in rows[1:-1]]
    # Two means for a row: of the losses, and of which are finite.
    assert all(2 * waits_s < s < 4 * waits_s for s in took_s)


@pytest.mark.long
@pytest.mark.parametrize("number", [0, 1])
def test_training_is_the_same_bit_for_bit_without_counting(tiny, tmp_path, monkeypatch, number):
    found = []
    for name in ("counted", "not"):
        if name == "not":
            monkeypatch.setattr(Meter, "is_new", lambda *_: False)
        recipe = make_recipe(
            tiny, f"runs={tmp_path}", f"name={name}", f"stages.{number}.log_every_steps=2"
        )
        run, job = make_job(recipe, number)
        stage = recipe.stages[number].name
        train_stage(job, LocalHost(run.stage_dir(stage)))
        found.append(run)
    counted, without = (read_weights(run.checkpoint(stage, "last")) for run in found)
    assert counted.keys() == without.keys()
    assert all(torch.equal(counted[name], without[name]) for name in counted)
    losses = [[r["loss"] for r in run.metrics() if r["kind"] == "train"] for run in found]
    assert losses[0] == losses[1]
    shares = [r.get("share_of_peak") for r in Run.open(found[0].path).metrics() if "loss" in r]
    assert any(shares) and all(0 < share < 1 for share in shares if share is not None)
