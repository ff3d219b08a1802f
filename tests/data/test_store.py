"""Stores: whole or absent, matched against the recipe, read without copies."""

import json
import pickle
import time
from dataclasses import replace

import numpy as np
import pytest

from msvqa.data import store as stores
from msvqa.data.store import ArraySpec, Entry, Store, StoreSpec, write_index, write_shard
from msvqa.errors import StoreError

SPEC = StoreSpec(
    kind="clips",
    arrays={"clips": ArraySpec(shape=(2, 4, 8, 8, 3), dtype="uint8")},
    num_clips=2,
    frames_per_clip=4,
    size_px={"clips": 8},
    decoder="pyav",
)
VERSIONS = {"av": "1"}


def clips_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (2, 4, 8, 8, 3), dtype=np.uint8)


def entry(number: int) -> Entry:
    if number == 3:
        return Entry(video_id="3", outcome="timeout", error="3.avi: no result", facts={"bytes": 7})
    arrays = {"clips": clips_of(number)}
    return Entry(video_id=str(number), outcome="ok", facts={"bytes": 5}, arrays=arrays)


@pytest.fixture
def store(tmp_path):
    """Store of videos 0 to 6 in three shards; video 3 is rejected."""
    folder = tmp_path / "store"
    numbers = ([0, 1, 2], [3, 4, 5], [6])
    shards = [
        write_shard(folder, n, SPEC, map(entry, chosen), VERSIONS)
        for n, chosen in enumerate(numbers)
    ]
    return write_index(folder, SPEC, shards, VERSIONS)


def test_equal_files_are_known_also_where_the_index_does_not_say(tmp_path):
    def entries(*numbers):
        for number in numbers:
            # Those of 0, 2 and 4 are the same, and of 3, which has no frames.
            content = "a" if number in (0, 2, 3, 4) else str(number)
            yield replace(entry(number), facts={"sha256": content})

    shards = [
        write_shard(tmp_path, n, SPEC, entries(*chosen), VERSIONS)
        for n, chosen in enumerate([(0, 1, 2), (3, 4, 5)])
    ]
    assert write_index(tmp_path, SPEC, shards, VERSIONS).copies == [["0", "2", "4"]]
    index = tmp_path / "store.json"
    without = {k: v for k, v in json.loads(index.read_text()).items() if k != "copies"}
    index.write_text(json.dumps(without))
    assert Store.open(tmp_path).copies == [["0", "2", "4"]]


def test_what_is_written_is_read(store):
    assert store.video_ids == ["0", "1", "2", "4", "5", "6"]
    for video in store.video_ids:
        clips = store.read(video)["clips"]
        np.testing.assert_array_equal(clips, clips_of(int(video)))
        assert not clips.flags.writeable
        assert not clips.flags.owndata
    assert "3" not in store
    assert store.rejected == {"3": ("timeout", "3.avi: no result")}
    assert store.facts["4"]["bytes"] == 5
    with pytest.raises(StoreError, match="'3': timeout"):
        store.read("3")
    with pytest.raises(StoreError, match="never extracted"):
        store.read("77")


def test_same_entries_same_bytes(store, tmp_path):
    for shard in ("00000", "00001"):
        write_shard(tmp_path / "other", int(shard), SPEC, map(entry, [3, 4, 5]), VERSIONS)
    files = [tmp_path / "other/shards" / s / "shard.json" for s in ("00000", "00001")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_arrays_are_those_that_numpy_writes(store, tmp_path):
    np.save(tmp_path / "numpy.npy", np.stack([clips_of(n) for n in (4, 5)]))
    written = tmp_path / "store/shards/00001/clips.npy"
    assert written.read_bytes() == (tmp_path / "numpy.npy").read_bytes()


def test_nothing_stays_aside_of_a_shard_that_failed(tmp_path):
    def entries():
        yield entry(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, 0, SPEC, entries(), VERSIONS)
    assert not [*(tmp_path / "shards").iterdir()]


def test_only_the_path_travels(store):
    store.read("0")
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).read("5")["clips"], clips_of(5))


def test_a_view_costs_microseconds(store):
    for video in store.video_ids:
        store.read(video)
    start = time.perf_counter()
    for _ in range(100):
        for video in store.video_ids:
            store.read(video)
    assert (time.perf_counter() - start) / 600 < 1e-3


@pytest.mark.parametrize("name", ["shard.json", "clips.npy"])
def test_a_shard_without_a_part_of_it_is_none(store, name):
    assert stores.read_shard(store.path, 0, SPEC, ["0", "1", "2"]) is not None
    (store.path / stores.shard_name(0) / name).unlink()
    assert stores.read_shard(store.path, 0, SPEC, ["0", "1", "2"]) is None


def test_a_shard_of_other_videos_or_settings_is_none(store):
    assert stores.read_shard(store.path, 0, SPEC, ["0", "1"]) is None
    other = replace(SPEC, decoder="decord")
    assert stores.read_shard(store.path, 0, other, ["0", "1", "2"]) is None


def test_damaged_shards_are_found(store):
    file = store.path / stores.shard_name(0) / "clips.npy"
    file.write_bytes(file.read_bytes()[:-100])
    assert stores.read_shard(store.path, 0, SPEC, ["0", "1", "2"]) is None
    with pytest.raises(StoreError, match=r"clips\.npy is damaged"):
        Store.open(store.path).read("0")
    np.save(file, np.zeros((3, 2, 4, 8, 8, 3), dtype=np.float32))
    with pytest.raises(StoreError, match="has float32"):
        Store.open(store.path).read("0")


def test_pickled_arrays_are_refused(store):
    file = store.path / stores.shard_name(0) / "clips.npy"
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match="damaged"):
        Store.open(store.path).read("0")


def test_incomplete_or_absent(store, tmp_path):
    with pytest.raises(StoreError, match=r"nothing is absent or incomplete.*`msvqa extract`"):
        Store.open(tmp_path / "nothing")
    (store.path / "store.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        Store.open(store.path)
    (store.path / "store.json").unlink()
    with pytest.raises(StoreError, match=r"is absent or incomplete: it has no store\.json"):
        Store.open(store.path)


def test_mismatch_names_every_field_with_both_values(store):
    assert Store.open(store.path, SPEC).spec == SPEC
    other = replace(SPEC, decoder="decord", num_clips=3)
    with pytest.raises(StoreError) as caught:
        Store.open(store.path, other)
    message = str(caught.value)
    assert "decoder: the store has pyav, the recipe wants decord" in message
    assert "num_clips: the store has 2, the recipe wants 3" in message
    assert "frames_per_clip" not in message


def test_wrong_shapes_are_not_written(tmp_path):
    bad = Entry(video_id="1", outcome="ok", arrays={"clips": np.zeros((1, 4, 8, 8, 3), np.uint8)})
    with pytest.raises(StoreError, match="video 1: clips has shape"):
        write_shard(tmp_path, 0, SPEC, [bad], VERSIONS)
    assert not (tmp_path / stores.shard_name(0)).exists()


def test_shards_are_bounded_by_bytes_and_videos():
    def shard_of(size: int) -> int:
        array = ArraySpec(shape=(8, 16, size, size, 3), dtype="uint8")
        return replace(SPEC, arrays={"clips": array}).videos_per_shard

    assert [shard_of(size) for size in (32, 100, 224, 2000)] == [16, 16, 6, 1]


def test_spec_survives_json():
    assert StoreSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC


def test_leftovers_are_removed(store):
    aside = store.path / "shards/.00001-abc"
    aside.mkdir()
    stores.remove_leftovers(store.path, 2)
    assert sorted(f.name for f in (store.path / "shards").iterdir()) == ["00000", "00001"]


def test_a_shard_that_was_replaced_meanwhile_is_not_read(store):
    assert store.read("0")["clips"].any()
    again = Store.open(store.path)
    write_shard(store.path, 0, SPEC, map(entry, [10, 11, 12]), VERSIONS)
    with pytest.raises(StoreError, match=r"00000 is damaged, or was extracted again"):
        again.read("0")


FEATURES = StoreSpec(
    kind="features",
    arrays={"motion": ArraySpec(shape=(2, 3), dtype="float16")},
    num_clips=2,
    frames_per_clip=4,
    size_px={},
    decoder="",
)


def features_of(number: int, value: float = 1.0) -> Entry:
    arrays = {"motion": np.full((2, 3), value, np.float32)}
    return Entry(video_id=str(number), outcome="ok", arrays=arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_no_store_takes_numbers_that_are_not_finite(tmp_path, value):
    with pytest.raises(StoreError, match="video 2: motion are not finite"):
        write_shard(tmp_path, 0, FEATURES, [features_of(1), features_of(2, value)], {})


def earlier_store(folder, value: float) -> Store:
    """Write a store as earlier versions did, which looked at no number; 2 has the given ones."""
    write_shard(folder, 0, FEATURES, [features_of(1), features_of(2)], {})
    array = np.load(folder / "shards/00000/motion.npy")
    array[1, 0] = value
    np.save(folder / "shards/00000/motion.npy", array)
    marker = folder / "shards/00000/shard.json"
    shard = json.loads(marker.read_text())
    assert shard.pop("finite") is True
    marker.write_text(json.dumps(shard))
    return write_index(folder, FEATURES, [shard], {})


def test_a_store_of_an_earlier_version_is_looked_at_when_it_is_read(tmp_path):
    store = earlier_store(tmp_path / "bad", np.nan)
    assert not store.is_finite
    assert store.read("1")["motion"].all()
    with pytest.raises(StoreError, match=r"bad: motion of video 2 are not finite"):
        store.read("2")
    shard = {"rows": ["1", "2"]}
    assert not stores.shard_is_finite(store.path, 0, FEATURES, shard)
    sound = earlier_store(tmp_path / "good", 3.0)
    np.testing.assert_array_equal(sound.read("2")["motion"][0], [3, 3, 3])
    assert stores.shard_is_finite(sound.path, 0, FEATURES, shard)
