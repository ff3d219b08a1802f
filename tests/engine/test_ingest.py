"""Decoding as a stream on Ray Data: in order, with bad videos named, and never waiting for ever."""

import gc
import pickle
import re
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from msvqa.data.datasets.synthetic import generate
from msvqa.data.medium import Medium
from msvqa.data.processors.clips import Clips
from msvqa.data.processors.processor import processor_of, store_spec
from msvqa.data.sampling import sample_clips
from msvqa.engine import actors, ingest
from msvqa.engine.actors import Pool
from msvqa.engine.ingest import ShardJob, stream_media, write_shards
from msvqa.engine.loop import train_stage
from msvqa.engine.pace import StagePace
from msvqa.errors import ClusterError, StorageError
from msvqa.prepare import prepare
from tests import barcode_video
from tests.local_host import LocalHost
from tests.tiny import VIDEOS, make_job, make_recipe

pytestmark = pytest.mark.ray

CLIPS = Clips(Clips.Config(num_clips=2, frames_per_clip=4, size_px=96, timeout_s=30.0))
LENGTHS = (30, 0, 12, 1, 45)


@pytest.fixture(autouse=True)
def free_cpus():
    """What is remembered of an error of an earlier test may hold an actor, which holds a CPU."""
    gc.collect()


@pytest.fixture
def paths(tmp_path):
    """Five videos; the second is not one."""
    files = [tmp_path / f"{number}.avi" for number in range(len(LENGTHS))]
    for file, length in zip(files, LENGTHS, strict=True):
        if length:
            barcode_video.write(file, length)
        else:
            file.write_bytes(b"no video")
    return [str(file) for file in files]


def stream(paths, workers):
    media = [Medium(str(number), path) for number, path in enumerate(paths)]
    return stream_media(media, CLIPS, workers)


def check(items):
    assert [item.index for item in items] == list(range(len(LENGTHS)))
    for item, length in zip(items, LENGTHS, strict=True):
        if not length:
            assert item.arrays is None
            assert item.outcome == "unreadable"
            assert "1.avi" in item.error
            continue
        assert item.error == ""
        assert item.arrays["clips"].dtype == np.uint8
        shown = [barcode_video.read(frame) for frame in item.arrays["clips"].reshape(-1, 96, 96, 3)]
        assert shown == sample_clips(length, 2, 4).ravel().tolist()


def test_a_stage_says_how_idle_its_decoders_are(ray_local, tmp_path):
    generate(tmp_path / "data", videos=VIDEOS)
    recipe = make_recipe(tmp_path, "clips.cache=none", "stages.0.log_every_steps=1")
    prepare(recipe.data)
    run, job = make_job(recipe, 0)
    train_stage(replace(job, store=None), LocalHost(run.stage_dir("reconstruct")))
    rows = [row for row in run.metrics() if row["kind"] == "train"]
    assert len(rows) == 6
    assert all(0 <= row["decoders_idle"] <= 1 for row in rows)
    assert rows[0]["decoders_idle"] > 0, "they have begun after the first lap"
    assert re.search(r"decoders idle \d+% of theirs", StagePace.of(rows).line("a", "fp32", None))


def test_how_long_workers_are_busy_is_known(ray_local, paths):
    start = time.perf_counter()
    found = list(stream(paths, 1))
    whole_s = time.perf_counter() - start
    assert all(item.busy_s > 0 for item in found)
    assert sum(item.busy_s for item in found) < whole_s


@pytest.mark.parametrize("workers", [1, 2])
def test_stream_is_in_order_and_names_bad_videos(ray_local, paths, workers):
    check(list(stream(paths, workers)))


def test_settings_of_ray_data_are_put_back(ray_local, paths):
    context = actors.DataContext.get_current()
    before = (context.execution_options.preserve_order, context.execution_no_progress_timeout_s)
    items = stream(paths[:1], 1)
    next(items)
    items.close()
    after = (context.execution_options.preserve_order, context.execution_no_progress_timeout_s)
    assert after == before


def test_too_few_cpus_are_an_error(ray_local, paths, monkeypatch):
    monkeypatch.setattr(ingest, "CPU_WAIT_S", 0.3)
    with pytest.raises(ClusterError, match="wants 64 free CPUs"):
        next(stream(paths, 64))


def test_no_progress_is_an_error(ray_local, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "NO_PROGRESS_S", 2.0)
    recipe, store = make_recipe(tmp_path, "clips.timeout_s=0.01"), str(tmp_path / "store")
    spec = store_spec(recipe).to_dict()
    job = ShardJob(processor_of(recipe), store, spec, {}, {0: [Medium("0", paths[0])]})
    taken = ray_local.util.placement_group([{"CPU": 2}])
    ray_local.get(taken.ready(), timeout=60)
    try:
        with pytest.raises(ClusterError, match=r"nothing was finished for 2 s: .* goes on"):
            list(write_shards(job, Pool(1)))
    finally:
        ray_local.util.remove_placement_group(taken)


def test_storage_that_fails_is_no_bad_video(ray_local, paths, tmp_path):
    away = "s3://user@bucket/x.avi"  # refused by the worker, before it asks any server
    with pytest.raises(StorageError, match="takes no user"):
        list(stream([paths[0], away], 1))
    recipe, store = make_recipe(tmp_path), str(tmp_path / "store")
    videos = [Medium("0", paths[0]), Medium("1", away)]
    job = ShardJob(processor_of(recipe), store, store_spec(recipe).to_dict(), {}, {0: videos})
    with pytest.raises(StorageError, match=r"video 1 cannot be read: .* takes no user"):
        list(write_shards(job, Pool(1)))


EXTRACTING = """
import pickle, sys
from pathlib import Path
from msvqa.engine.ingest import ShardWriter
ShardWriter(pickle.loads(Path(sys.argv[1]).read_bytes()))(0)
sys.exit("torch is here" if "torch" in sys.modules else 0)
"""


def test_workers_that_extract_pixels_do_without_torch(paths, tmp_path):
    store = tmp_path / "store"
    media = {0: [Medium("0", paths[0])]}
    job = tmp_path / "job.pickle"
    job.write_bytes(pickle.dumps(ShardJob(CLIPS, str(store), CLIPS.spec().to_dict(), {}, media)))
    done = subprocess.run(
        [sys.executable, "-c", EXTRACTING, str(job)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [file.name for file in store.glob("shards/00000/*.npy")] == ["clips.npy"]


@pytest.mark.slow
def test_stream_inside_a_training_worker(ray_local, paths, tmp_path):
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def train(config):
        # Twice, as in two epochs: the second must get the CPUs of the first.
        for _ in range(2):
            check(list(stream(config["paths"], 1)))

    TorchTrainer(
        train,
        train_loop_config={"paths": paths},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="stream", storage_path=str(tmp_path / "runs")),
    ).fit()
