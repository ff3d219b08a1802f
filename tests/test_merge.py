"""Merging runs: which are folds of one model, whose videos differ, and the file of the contest."""

import json
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from msvqa.data.records import as_example, parse_example, read_records, write_records
from msvqa.errors import RunError
from msvqa.extract import extract
from msvqa.merge import (
    Wanted,
    _refuse_other_videos,
    _weights,
    embedded,
    joined,
    merge,
    models_of,
    write_result,
)
from msvqa.recipe import parse
from msvqa.run import Run
from msvqa.space import parse_space
from msvqa.tune import tune
from tests.similar_videos import small_recipe, write_similar

VECTORS = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float16)
IDS = [f"10000000000000000{n}" for n in range(5)]


def run_of(tmp_path, name, index=0, **model):
    stage = {
        "name": "finetune", "objective": {"name": "similarity"}, "steps": 2,
        "folds": {"count": 3, "index": index},
    }  # fmt: skip
    recipe = parse(
        {
            "name": name, "runs": str(tmp_path), "stages": [stage],
            "data": {"name": "msvd_qa", "root": str(tmp_path)},
            "processor": {"name": "vectors", "frames": 4, "width": 8},
            "model": {"name": "uniter", **model},
        }
    )  # fmt: skip
    return Run(recipe.run_location, recipe)


def test_runs_that_differ_in_their_fold_alone_are_of_one_model(tmp_path):
    first, other = run_of(tmp_path, "a0"), run_of(tmp_path, "b0", embedding_size=64)
    second, last = run_of(tmp_path, "a1", index=1), run_of(tmp_path, "b2", 2, embedding_size=64)
    found = models_of([first, other, second, last])
    assert [[run.recipe.name for run in model] for model in found] == [["a0", "a1"], ["b0", "b2"]]
    with pytest.raises(RunError, match="a0 is named twice"):
        models_of([first, other, run_of(tmp_path, "a0")])


def test_weights_are_one_for_each_model():
    assert _weights(Wanted(), 4) == [0.25] * 4
    assert _weights(Wanted(weights=[0.17, 0.2]), 2) == [0.17, 0.2]
    for weights, said in (([1.0], "1 weights for 2 models"), ([0.0, 0.0], "not all 0")):
        with pytest.raises(RunError, match=said):
            _weights(Wanted(weights=weights), 2)


def test_other_videos_are_refused_by_name(tmp_path):
    first, second = run_of(tmp_path, "a0"), run_of(tmp_path, "a1", index=1)
    _refuse_other_videos((first, IDS), (second, list(IDS)))
    with pytest.raises(RunError, match=rf"a1 lacks 1: {IDS[1]}; .*a0 lacks 1: 7"):
        _refuse_other_videos((first, IDS), (second, [IDS[0], *IDS[2:], "7"]))
    with pytest.raises(RunError, match="in another order"):
        _refuse_other_videos((first, IDS), (second, IDS[::-1]))


def test_a_run_that_is_not_finished_is_not_merged(tmp_path):
    with pytest.raises(RunError, match="a0: stage 'finetune' is not finished"):
        embedded(run_of(tmp_path, "a0"), Wanted(split="test"))


def test_folds_are_averaged_and_models_added():
    found = joined([VECTORS[:2], VECTORS[2:]], [0.75, 0.25])
    first = VECTORS[:2].astype(np.float64).mean(axis=0)
    assert found == pytest.approx(0.75 * first + 0.25 * VECTORS[2].astype(np.float64))
    narrow = VECTORS[:1, :, :3]
    with pytest.raises(RunError, match="3 and 8 numbers cannot be added"):
        joined([VECTORS[:2], narrow], [0.5, 0.5])
    assert joined([VECTORS[:2], narrow], [0.5, 0.5], "concatenate").shape == (5, 5)


def test_the_archive_is_what_the_contest_takes(tmp_path):
    vectors = joined([VECTORS], [1.0])
    write_result(tmp_path / "out", IDS, vectors)
    with zipfile.ZipFile(tmp_path / "out" / "result.zip") as archive:
        (member,) = archive.infolist()
        content = json.loads(archive.read("result.json"))
    assert member.filename == "result.json"
    assert member.compress_type == zipfile.ZIP_DEFLATED
    assert list(content) == IDS
    assert np.array_equal(np.array([*content.values()], np.float32), vectors.astype(np.float32))
    table = pq.read_table(tmp_path / "out" / "embeddings.parquet")
    assert table["id"].to_pylist() == IDS
    assert table["embedding"].type.list_size == 8
    first = (tmp_path / "out" / "result.zip").read_bytes()
    write_result(tmp_path / "again", IDS, vectors)
    assert (tmp_path / "again" / "result.zip").read_bytes() == first


@pytest.mark.ray
def test_folds_share_their_pretraining_and_become_one_result(ray_local, tmp_path):
    root = tmp_path / "set"
    write_similar(root)
    recipe = small_recipe(root, tmp_path / "runs", "quickstart", "processor.cache=store")
    fields = {"stages.finetune.folds.index": {"grid": [0, 1]}}
    result = tune(recipe, parse_space({"name": "folds", "fields": fields, "search": "grid"}))
    trials = sorted(trial.location for trial in result.trials)
    assert len(trials) == 2
    shared = result.sweep.path / "shared" / "pretrain"
    for location in trials:
        run = Run.open(location)
        assert run.checkpoint("pretrain").parent.samefile(shared)
        assert {row["stage"] for row in run.metrics()} == {"pretrain", "finetune"}
    merged = merge(trials, tmp_path / "out", Wanted(on="test_b"))
    assert [len(model) for model in merged.models] == [2]
    assert merged.shape == (24, 64)
    assert merged.metrics["n"] == 20 and set(merged.metrics["runs"]) == {*trials}
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == merged.metrics
    with zipfile.ZipFile(tmp_path / "out" / "result.zip") as archive:
        found = json.loads(archive.read("result.json"))
    records = root / "test_b" / "test_b.tfrecords"
    ids = [_id(record.content) for record in read_records(records)]
    assert sorted(found) == sorted(ids)

    # A record with other frames, as long as it was: the store notices.
    view = recipe.of_evaluation("test_b")
    before = extract(view, trains=False).read(ids[0])["vectors"].copy()
    write_records(records, [*_with_other_frames(records)])
    after = extract(view, trains=False).read(ids[0])["vectors"]
    assert (after == before + 1).all()


def _id(content):
    (name,) = parse_example(content)["id"]
    return name.decode()


def _with_other_frames(file):
    for record in read_records(file):
        features = {name: list(values) for name, values in parse_example(record.content).items()}
        frames = [
            np.frombuffer(frame, "<f2") + np.float16(1) for frame in features["frame_feature"]
        ]
        yield as_example(features | {"frame_feature": [frame.tobytes() for frame in frames]})
