"""Extraction: complete, resumable, byte-equal, and honest about bad videos."""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from msvqa import extract as extracting
from msvqa.data import store as stores
from msvqa.data.medium import Medium
from msvqa.data.processors.frozen_encoder import Trial
from msvqa.data.processors.processor import processor_of, store_spec
from msvqa.data.sampling import sample_clips
from msvqa.data.store import Entry
from msvqa.engine.actors import Pool
from msvqa.engine.ingest import try_formats
from msvqa.errors import DataError, RecipeError, StoreError
from msvqa.extract import extract
from msvqa.recipe import parse
from tests import barcode_video
from tests.forked_python import program
from tests.hashes import content

pytestmark = pytest.mark.ray

LENGTHS = (20, 33, 1, 50, 41)
SIZE = 96


def recipe_of(root: Path, *overrides: str, **features):
    raw = {
        "name": "test",
        "runs": str(root.parent / "runs"),
        "data": {"name": "table", "root": str(root), "prepared": str(root.parent / "prepared")},
        "clips": {"num_clips": 2, "frames_per_clip": 4, "size_px": SIZE, "timeout_s": 30.0},
        "model": {"name": "dualvgr" if features else "msvqa"},
        "stages": [{"name": "answer", "objective": {"name": "answering"}, "epochs": 1}],
        "scaling": {"data_workers": 2},
    }
    if features:
        raw["features"] = features
    return parse(raw, overrides)


@pytest.fixture
def root(tmp_path):
    """Folder of five videos, named by numbers, with one question each."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = ["video,question,answer,split"]
    for number, length in enumerate(LENGTHS, start=1):
        barcode_video.write(folder / f"{number}.avi", length)
        split = ("train", "train", "val", "test", "train")[number - 1]
        lines.append(f"{number},what is it?,code,{split}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(stores, "SHARD_VIDEOS", {"clips": 2, "features": 2})


def test_a_video_that_took_too_long_is_tried_again_with_more_time(ray_local, root):
    recipe = recipe_of(root)
    store = extract(recipe)
    entries = [
        Entry(video_id=v, outcome="ok", facts=store.facts[v], arrays=dict(store.read(v)))
        for v in store.video_ids
    ]
    facts = {"bytes": store.facts["1"]["bytes"], "timeout_s": 30.0}
    entries[0] = Entry(video_id="1", outcome="timeout", error="no result after 30 s", facts=facts)
    stores.write_shard(store.location, 0, store.spec, entries, store.made_with)
    (store.path / "store.json").unlink()
    for _ in range(2):
        with pytest.raises(DataError, match="1 of 5 videos yield no frames:\n  1: timeout: "):
            extract(recipe)
    assert len(extract(recipe_of(root, "clips.timeout_s=40.0"))) == 5


def test_clips_are_those_of_the_plan(ray_local, root, small_shards):
    seen = []
    store = extract(recipe_of(root), progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (5, 5, 0)
    assert len(store) == 5
    for video in store.video_ids:
        length = LENGTHS[int(video) - 1]
        clips = store.read(video)["clips"]
        shown = [barcode_video.read(frame) for frame in clips.reshape(-1, SIZE, SIZE, 3)]
        assert shown == sample_clips(length, 2, 4).ravel().tolist()
        facts = store.facts[video]
        assert facts["num_frames"] == length
        file = root / f"{video}.avi"
        assert facts["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert {"av", "torch", "msvqa"} <= set(store.made_with)


def test_nothing_is_done_twice(ray_local, root, small_shards):
    store = extract(recipe_of(root))
    before = content(store.path)
    times = {f: f.stat().st_mtime_ns for f in store.path.rglob("*.npy")}
    again = extract(recipe_of(root), progress=lambda *_: pytest.fail("it extracts again"))
    assert content(again.path) == before
    assert {f: f.stat().st_mtime_ns for f in store.path.rglob("*.npy")} == times


def test_a_replaced_video_is_extracted_again(ray_local, root, small_shards):
    store = extract(recipe_of(root))
    video = store.video_ids[0]
    barcode_video.write(root / "1.avi", 25)
    assert extract(recipe_of(root)).facts[video]["num_frames"] == 25


def test_bad_videos_are_named_and_never_zeros(ray_local, root, small_shards):
    (root / "2.avi").write_bytes(b"no video at all")
    (root / "4.avi").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 5 videos yield no frames") as caught:
        extract(recipe_of(root))
    assert "allow_missing" in str(caught.value)
    store = extract(recipe_of(root, "data.allow_missing=true"))
    assert len(store) == 3
    assert {outcome for outcome, _ in store.rejected.values()} == {"unreadable"}
    for video in store.rejected:
        assert video in str(caught.value)
        with pytest.raises(StoreError, match="unreadable"):
            store.read(video)


def test_another_setting_is_refused(ray_local, root, small_shards):
    folder = root.parent / "store"
    extract(recipe_of(root, f"clips.store={folder}"))
    with pytest.raises(StoreError, match=r"size_px\.clips: the store has 96, the recipe wants 64"):
        extract(recipe_of(root, f"clips.store={folder}", "clips.size_px=64"))


def test_more_workers_than_there_are_cpus(ray_local, root):
    with pytest.raises(Exception, match=r"data_workers asks for 64 CPUs"):
        extract(recipe_of(root, "scaling.data_workers=64"))


FEATURES = {
    "appearance": {"name": "resnet", "depth": 10, "base_width": 8},
    "motion": {"name": "resnext3d", "depth": 50},
    "appearance_px": 48,
    "motion_px": 32,
    "dtype": "float32",
}


def features_of(root):
    """Return the section with the widths that the small encoders have."""
    from msvqa.models.encoders.resnet import ResNet
    from msvqa.models.encoders.resnext3d import ResNeXt3D

    motion = ResNeXt3D.Config(**FEATURES["motion"])
    appearance = ResNet.Config(**FEATURES["appearance"])
    widths = {"appearance_width": ResNet(appearance).width, "motion_width": ResNeXt3D(motion).width}
    return {**FEATURES, **widths}


def test_features_equal_encoding_by_hand(ray_local, root, small_shards, caplog):
    import torch

    from msvqa.data.processors.frozen_encoder import open_encoder
    from msvqa.data.video import decode

    recipe = recipe_of(root, **features_of(root))
    store = extract(recipe, hdf5=root.parent / "out.h5")
    for part, name in (("appearance", "resnet"), ("motion", "resnext3d")):
        assert (
            f"features.{part}: no weights are given, so the features are those of a random {name}"
            in caplog.text
        )
    video = store.video_ids[1]
    found = store.read(video)
    decoded = decode(root / f"{video}.avi", lambda n: sample_clips(n, 2, 4), [48, 32])
    with torch.inference_mode():
        frames = torch.from_numpy(decoded.frames[48].reshape(-1, 48, 48, 3))
        encoder = open_encoder("appearance", recipe.features.appearance, recipe.seed)
        appearance = encoder(frames).numpy().reshape(2, 4, -1)
        encoder = open_encoder("motion", recipe.features.motion, recipe.seed)
        motion = encoder(torch.from_numpy(decoded.frames[32])).numpy()
    np.testing.assert_allclose(found["appearance"], appearance, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["motion"], motion, rtol=1e-3, atol=1e-5)

    # The two files hold the same, and a recipe that reads them gets the same store.
    files = [root.parent / f"out_{part}_feat.h5" for part in ("appearance", "motion")]
    with h5py.File(files[0]) as a, h5py.File(files[1]) as m:
        row = a["ids"][:].tolist().index(int(video))
        np.testing.assert_array_equal(a["resnet_features"][row], found["appearance"])
        np.testing.assert_array_equal(m["resnext_features"][row], found["motion"])
    widths = {k: v for k, v in features_of(root).items() if k.endswith("_width") or k == "dtype"}
    from_files = recipe_of(root, appearance_hdf5=str(files[0]), motion_hdf5=str(files[1]), **widths)
    copied = extract(from_files)
    for name, array in store.read(video).items():
        np.testing.assert_array_equal(copied.read(video)[name], array)


def test_a_wrong_width_is_said_before_anything_starts(root):
    with pytest.raises(RecipeError, match="appearance_width: is 2048, resnet gives"):
        extract(recipe_of(root, **FEATURES))


def test_hdf5_wants_numbers(root):
    (root / "1.avi").rename(root / "one.avi")
    table = root / "table.csv"
    table.write_text(table.read_text().replace("\n1,", "\none,"))
    with pytest.raises(DataError, match="'one'"):
        extract(recipe_of(root, **features_of(root)), hdf5=root / "a.h5")


def test_hdf5_wants_features(root):
    with pytest.raises(RecipeError, match="no section `features`"):
        extract(recipe_of(root), hdf5=root / "a.h5")


OVERRIDES = ("clips.size_px=512", "scaling.data_workers=1")
JOB = """
import sys
from pathlib import Path
from msvqa.data import store
from tests.test_extract import OVERRIDES, recipe_of
from msvqa.extract import extract
from tests.forked_python import fork_ray
store.SHARD_VIDEOS = {"clips": 1, "features": 1}
fork_ray(sys.argv[2])
extract(recipe_of(Path(sys.argv[1]), *OVERRIDES))
"""


def run_job(root: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([program(), "-c", JOB, str(root), program()], env=environment)


@pytest.mark.slow
def test_killed_and_started_again_equals_uninterrupted(ray_local, root, monkeypatch):
    monkeypatch.setattr(stores, "SHARD_VIDEOS", {"clips": 1, "features": 1})
    store = extract(recipe_of(root, *OVERRIDES)).path
    expected = content(store)
    store.rename(root.parent / "uninterrupted")

    job = run_job(root)
    deadline = time.monotonic() + 120
    while not any((store / "shards").glob("0*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert not (store / "store.json").exists()
    finished = {file: file.stat().st_mtime_ns for file in (store / "shards").glob("0*/clips.npy")}
    assert 1 <= len(finished) < len(LENGTHS)
    with pytest.raises(StoreError, match="is absent or incomplete"):
        stores.Store.open(store)

    extract(recipe_of(root, *OVERRIDES))
    assert content(store) == expected
    assert all(file.stat().st_mtime_ns == before for file, before in finished.items())


def trials_of(gain):
    return [Trial(part, 0.9999, gain) for part in ("appearance", "motion")]


def test_the_number_format_is_chosen_once_and_kept_by_what_goes_on(
    ray_local, root, small_shards, monkeypatch, caplog
):
    recipe = recipe_of(root, **features_of(root), precision="auto")
    # What the clock says is not the same in every run.
    monkeypatch.setattr(extracting, "try_formats", lambda *_: trials_of(2.0))
    store = extract(recipe)
    assert store.spec.precisions == {"appearance": "bf16", "motion": "bf16"}
    whole = content(store.path)
    monkeypatch.setattr(extracting, "try_formats", lambda *_: pytest.fail("it tries again"))
    assert extract(recipe).spec == store.spec, "a whole store"
    shutil.rmtree(store.path / stores.shard_name(1))
    (store.path / stores.INDEX).unlink()
    assert content(extract(recipe).path) == whole, "one that was stopped"
    shutil.rmtree(store.path)
    monkeypatch.setattr(extracting, "try_formats", lambda *_: trials_of(0.5))
    assert extract(recipe).spec == store_spec(recipe_of(root, **features_of(root)))
    assert "features.motion: computed in float32: bf16 is 0.50 times as fast" in caplog.text


def test_number_formats_are_tried_where_features_are_made(ray_local, root):
    (root / "1.avi").write_bytes(b"no video")
    recipe = recipe_of(root, **features_of(root), precision="auto")
    media = [Medium(str(number), str(root / f"{number}.avi")) for number in (1, 2)]
    trials = try_formats(processor_of(recipe), media, Pool(2))
    assert [trial.part for trial in trials] == ["appearance", "motion"]
    assert all(0.99 < trial.cosine <= 1 and trial.gain > 0 for trial in trials)
    (nothing, _) = try_formats(processor_of(recipe), media[:1], Pool(2))
    assert "nothing could be read" in nothing.problem
