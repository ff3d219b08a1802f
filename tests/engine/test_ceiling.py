"""What the doctor measures is kept for others, as long as the machine and the work are these."""

import json
from types import SimpleNamespace

import pytest

from msvqa.checks.speed import speed_checks
from msvqa.engine import ceiling, speed
from msvqa.engine.cluster import Resources
from msvqa.engine.pace import ExtractionPace, keep_pace
from msvqa.engine.speed import Speed
from msvqa.extract import _workers, speed_line
from tests import featured
from tests.tiny import make_recipe

MEASURED = Speed(
    device="cpu", devices=1, cpus=2, gemm_flops={"float32": 2e11, "bfloat16": 4e11},
    encoder_flops=1e11, decode_s=0.1, video_flops=2e12,
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MSVQA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "data").mkdir()
    return make_recipe(tmp_path)


def test_nothing_is_known_before_the_doctor_came(recipe):
    assert ceiling.best_product_tflops("fp32") is None
    assert ceiling.best_extraction_per_s(recipe) is None


def test_what_the_doctor_measured_is_found_by_others(recipe, tmp_path, monkeypatch):
    asked = []

    def measure(clips, videos, sizes_px):
        asked.append((clips.num_clips, sizes_px))
        return Speed(**{**vars(MEASURED), "encoder_flops": 1180 * MEASURED.video_flops})

    monkeypatch.setattr(speed, "measure", measure)
    computing, *_ = speed_checks(None, recipe)
    assert "= 1180 videos/s" in computing.detail
    assert asked == [(2, (32,))]
    assert ceiling.best_product_tflops("fp32") == pytest.approx(0.2)
    assert ceiling.best_product_tflops("bf16") == pytest.approx(0.4)
    # 2 cores x 0.8 / (0.1 s x 1.1)
    assert ceiling.best_extraction_per_s(recipe) == pytest.approx(14.545, rel=1e-3)
    other = make_recipe(tmp_path, "clips.size_px=64")
    assert ceiling.best_extraction_per_s(other) is None, "other frames were made"


def test_a_measurement_replaces_that_of_the_same_work_alone(recipe):
    for decode_s in (0.1, 0.2):
        work = ceiling.work_of(recipe)
        ceiling.keep(work, ceiling.Speed(**{**vars(MEASURED), "decode_s": decode_s}))
    ceiling.keep(ceiling.work_of(None), MEASURED)
    kept = json.loads((ceiling.machine_folder() / ceiling.KEPT).read_text())["measured"]
    assert [entry["speed"]["decode_s"] for entry in kept] == [0.2, 0.1]


def test_another_machine_or_version_knows_nothing_of_it(recipe, monkeypatch):
    ceiling.keep(ceiling.work_of(recipe), MEASURED)
    assert ceiling.best_product_tflops("fp32")
    monkeypatch.setattr(ceiling, "processor_name", lambda: "another")
    assert ceiling.best_product_tflops("fp32") is None
    assert ceiling.best_extraction_per_s(recipe) is None


def test_encoders_whose_work_is_not_known_have_no_ceiling(tmp_path):
    featured.write_data(tmp_path)
    recipe = featured.make_recipe(tmp_path)
    ceiling.keep(ceiling.work_of(recipe), MEASURED)
    assert ceiling.best_extraction_per_s(recipe) is None


def test_on_processors_decoding_and_encoding_share_the_cores():
    assert MEASURED.computed_per_s == pytest.approx(0.05)
    shared = MEASURED.extracted_per_s(encodes=True)
    assert shared == pytest.approx(1 / (1 / 0.05 + 1 / MEASURED.decoded_per_s))
    on_gpu = Speed(**{**vars(MEASURED), "device": "a GPU"})
    assert on_gpu.extracted_per_s(encodes=True) == pytest.approx(0.05)
    assert on_gpu.extracted_per_s(encodes=False) == MEASURED.decoded_per_s


def test_a_gpu_has_as_many_workers_as_keep_it_busy(tmp_path):
    (tmp_path / "data").mkdir()
    sees = ("features.appearance.name=resnet", "features.motion.name=resnext3d")
    recipe = make_recipe(tmp_path, *sees)
    for cpus, gpus, workers in ((64, 1, 16), (64, 2, 32), (8, 1, 8), (4, 8, 4), (64, 0, 64)):
        pool = _workers(recipe, Resources(cpus=cpus, gpus=gpus))
        assert (pool.workers, pool.gpus_per_worker > 0) == (workers, gpus > 0)
    on_gpu = {"device": "GPU", "cpus": 64, "encoder_flops": 3e13, "decode_s": 0.1}
    ceiling.keep(ceiling.work_of(recipe), Speed(**{**vars(MEASURED), **on_gpu}))
    # 15 videos a second x 0.1 s x 1.1 / 0.8 decode, and one encodes.
    assert _workers(recipe, Resources(cpus=64, gpus=1)).workers == 4
    asked = make_recipe(tmp_path, *sees, "scaling.data_workers=5")
    assert _workers(asked, Resources(cpus=64, gpus=1)).workers == 5


def test_a_store_of_an_earlier_version_says_that_it_does_not_know(recipe, tmp_path):
    assert "earlier version" in speed_line(recipe, SimpleNamespace(location=str(tmp_path)))


def kept_line(recipe, folder, machine) -> str:
    """Return the line of a store that some machine has extracted at 4 media/s."""
    folder.mkdir(exist_ok=True)
    spent = {"reading": 1.0, "decoding": 10.0, "computing": 4.0, "writing": 1.0}
    pace = ExtractionPace(
        media=40, workers=2, starting_s=3.0, wall_s=10.0, spent_s=spent, driver_idle=0.9,
        ended_at="", machine=machine,
    )  # fmt: skip
    keep_pace(str(folder), pace)
    return speed_line(recipe, SimpleNamespace(location=str(folder)))


def test_a_store_is_compared_with_the_machine_alone_that_made_it(recipe, tmp_path):
    ceiling.keep(ceiling.work_of(recipe), MEASURED)
    here = ceiling.this_machine()
    assert "; 28% of the machine's 14.5 as doctor" in kept_line(recipe, tmp_path / "s", here)
    for other in ({**here, "cpus": 999}, None):
        line = kept_line(recipe, tmp_path / "s", other)
        assert line.endswith("idle 20%); decoding limits"), "the doctor cannot help here either"


def test_the_doctor_is_named_where_it_can_help_alone(recipe, tmp_path):
    here = ceiling.this_machine()
    assert "`msvqa doctor --speed RECIPE`" in kept_line(recipe, tmp_path / "s", here)
    featured.write_data(tmp_path / "other")
    other = featured.make_recipe(tmp_path / "other")
    assert "doctor" not in kept_line(other, tmp_path / "s", here)


def test_other_gpus_are_another_machine(monkeypatch):
    found = []
    for gpus, visible in (([], "0"), ([], "1"), (["A"], "0"), (["A"], "1")):
        monkeypatch.setattr(ceiling, "_gpus", lambda gpus=gpus: gpus)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        found.append(ceiling.this_machine())
    assert found[0] == found[1] and found[2] != found[3]
