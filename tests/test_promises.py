"""What must not change for those who already have runs, stores and prepared folders."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location, store_spec
from msvqa.data.store import Store
from msvqa.engine.checkpoint import WEIGHTS, read_weights
from msvqa.evaluate import rescore
from msvqa.prepare import prepare
from msvqa.run import Run
from msvqa.train import check, check_initial, check_own
from tests.earlier import STOPPED_AFTER, finish, unpack

pytestmark = pytest.mark.long

# The kept runs may have been trained on a processor that adds in another order.
CLOSE = 1e-5
WITHOUT_EFFECT = {
    "network.readout.score.bias",
    "network.reasoning.question_attention.0.score.bias",
}
"""Softmax takes these away: their gradients are rounding, which Adam makes whole steps of."""
LARGEST = 0.05
"""Of what these steps come to; they begin in other places by chance."""


@pytest.fixture(scope="module", params=STOPPED_AFTER)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an earlier version, stopped within an epoch, with its data and its store."""
    return unpack(name, tmp_path_factory.mktemp("earlier") / name)


@pytest.fixture(scope="module")
def run(name: str, folder: Path) -> Run:
    return Run.open(folder / "runs" / name)


@pytest.fixture(scope="module")
def prepared(run: Run) -> Prepared:
    return prepare(run.recipe.data, need_videos=processor_of(run.recipe).reads_files)


@pytest.fixture(scope="module")
def ended(run: Run, folder: Path, prepared: Prepared) -> Run:
    """The same run, continued to its end by this version."""
    store = Store.open(store_location(run.recipe), store_spec(run.recipe))
    return finish(folder, run.recipe, prepared, store)


def test_the_run_of_an_earlier_version_is_taken_up_as_it_is(run, prepared):
    check(run.recipe)
    check_initial(run.recipe)
    run.refuse_changes()
    check_own(run, [prepared] * len(run.recipe.stages))
    stages = [stage.name for stage in run.recipe.stages]
    assert [stage for stage in stages if not run.is_finished(stage)] == stages[-1:]


def test_its_store_is_read_unchanged(run, prepared):
    store = Store.open(store_location(run.recipe), store_spec(run.recipe))
    asked = {v for name in prepared.splits for v in prepared.split(name, False).media.id}
    assert set(store.video_ids) == asked
    for video in asked:
        found = {name: array.shape for name, array in store.read(video).items()}
        assert found == {name: array.shape for name, array in store.spec.arrays.items()}


def test_continued_it_comes_to_the_weights_that_the_earlier_version_came_to(ended, folder):
    expected = load_file(folder / "ended" / WEIGHTS)
    weights = read_weights(ended.checkpoint("answer", "last"))
    assert weights.keys() == expected.keys()
    assert expected.keys() >= WITHOUT_EFFECT
    different = {
        key: float((weights[key].double() - expected[key].double()).abs().max())
        for key in expected.keys() - WITHOUT_EFFECT
        if not weights[key].double().allclose(expected[key].double(), rtol=CLOSE, atol=CLOSE)
    }
    assert not different
    for key in WITHOUT_EFFECT:
        assert weights[key].isfinite().all()
        assert (weights[key] - expected[key]).abs().max() < LARGEST


def test_its_predictions_are_counted_again_without_a_model(ended, folder):
    counted = json.loads((ended.evaluation_dir("test") / "metrics.json").read_text())
    for checkpoint in ended.path.glob("*/step-*/weights.safetensors"):
        checkpoint.rename(checkpoint.with_suffix(".away"))
    try:
        assert rescore(ended.path, "test") == counted
    finally:
        for away in ended.path.glob("*/step-*/weights.away"):
            away.rename(away.with_suffix(".safetensors"))


def test_its_predictions_and_metrics_are_those_of_the_earlier_version(ended, folder):
    kept, found = folder / "ended", ended.evaluation_dir("test")
    expected = pq.read_table(kept / "predictions.parquet")
    table = pq.read_table(found / "predictions.parquet")
    exact = [name for name in expected.column_names if name != "probability"]
    assert table.select(exact).to_pylist() == expected.select(exact).to_pylist()
    for row, before in zip(table["probability"], expected["probability"], strict=True):
        assert row.as_py() == pytest.approx(before.as_py(), abs=CLOSE)
    metrics = json.loads((found / "metrics.json").read_text())
    before = json.loads((kept / "metrics.json").read_text())
    assert {key: metrics[key] for key in before} == before
