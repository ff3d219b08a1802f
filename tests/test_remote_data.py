"""Data sets whose videos and annotations are in a real object store."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

import msvqa
from msvqa import machine, storage
from msvqa.data import root as roots
from msvqa.data.datasets.synthetic import generate
from msvqa.data.medium import Medium
from msvqa.data.processors.clips import ClipExtractor, Clips
from msvqa.data.processors.processor import processor_of, store_location
from msvqa.data.store import Store
from msvqa.doctor import doctor
from msvqa.errors import DataError, StorageError, VideoError
from msvqa.extract import extract
from msvqa.page.footage import Footage
from msvqa.prepare import prepare
from msvqa.recipe import ClipsConfig, Recipe, parse, parse_data
from msvqa.storage import on_this_disk
from tests import barcode_video
from tests.faults.bench import Command
from tests.hashes import content
from tests.msvd_folder import STEMS, write_msvd
from tests.object_store import BUCKET, STORES, requests, send
from tests.tiny import VIDEOS, make_recipe, raw_recipe

ODD_STEMS = STEMS | {1: "a b#%41_é+&=1", 2: "日本 (?)", 3: "v:*[1]'\"~", 4: "..d"}
CLIPS = ClipsConfig(num_clips=2, frames_per_clip=4, size_px=32, timeout_s=30.0)


@pytest.fixture(params=STORES)
def place(request, servers, tmp_path, monkeypatch):
    """A folder of an object store for data."""
    monkeypatch.setenv(machine.CACHE_FOLDER, str(tmp_path / "cache"))
    storage._remote_folder.cache_clear()
    return f"{request.param}://{BUCKET}/{tmp_path.name}"


def config_of(name, root, prepared, **fields):
    return parse_data(name, root=str(root), prepared=str(prepared), **fields)


def left_on_the_disk(cache: Path) -> list[Path]:
    """Return all files that were brought here, whichever process did it."""
    names = (".avi", ".mp4")
    return [path for path in cache.rglob("*") if path.suffix in names]


def prepared_alike(name, folder, place, **fields):
    """Prepare a folder and its copy in an object store; what is written must be the same."""
    send(folder, place)
    here = prepare(config_of(name, folder, folder.parent / "here", **fields))
    with requests() as watched:
        there = prepare(config_of(name, place, folder.parent / "there", **fields))
    for file in ("media.arrow", "examples.arrow", "vocabulary.json", "answers.json", "missing.txt"):
        assert (here.path / file).read_bytes() == (there.path / file).read_bytes(), file
    for key in ("sources", "present"):
        assert here.info["identity"][key] == there.info["identity"][key]
    assert not any(watched.downloads(ending) for ending in (".avi", ".mp4"))
    for ending in (".json", ".csv"):
        wanted = [name for name in there.info["identity"]["sources"] if name.endswith(ending)]
        assert watched.downloads(ending) == len(wanted)
    lists = [line for line in watched.lines if "list-type=2" in line or "/o?prefix=" in line]
    assert len(lists) == 1, "a folder of any size is listed once"
    return there


@pytest.mark.long
def test_msvd_is_prepared_as_on_a_disk_whatever_the_names(place, tmp_path):
    folder = write_msvd(tmp_path / "data", stems=ODD_STEMS)
    there = prepared_alike("msvd_qa", folder, place)
    assert there.split("train").media.path == [f"{place}/video/{ODD_STEMS[n]}.avi" for n in (1, 2)]


@pytest.mark.long
def test_msrvtt_is_prepared_as_on_a_disk(place, tmp_path):
    folder = write_msvd(tmp_path / "data", videos=())
    for split in ("train", "val", "test"):
        file = folder / f"{split}_qa.json"
        elements = [element | {"category_id": 1} for element in json.loads(file.read_text())]
        file.write_text(json.dumps(elements))
    for name in ("TrainValVideo/video1.mp4", "TrainValVideo/video3.webm", "TestVideo/video4.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    there = prepared_alike("msrvtt_qa", folder, place, allow_missing=True)
    assert there.split("val").media.path == [f"{place}/TrainValVideo/video3.webm"]


def write_table(folder: Path, name: str, rows: list[str], videos: list[str]) -> Path:
    for video in videos:
        (folder / video).parent.mkdir(parents=True, exist_ok=True)
        (folder / video).touch()
    text = "\n".join(["video,question,answer,split", *rows])
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.long
def test_a_table_is_prepared_as_on_a_disk(place, tmp_path):
    rows = ["a b#1.avi,what?,cat,train", "video/more/x.mp4,who?,man,val", "c,how?,two,test"]
    videos = ["a b#1.avi", "video/more/x.mp4", "video/c.avi"]
    folder = write_table(tmp_path / "data", "questions 1#%20é.csv", rows, videos)
    there = prepared_alike("table", folder, place)
    assert there.split("test").media.path == [f"{place}/video/c.avi"]


@pytest.mark.long
def test_a_table_may_name_full_locations_and_be_named_itself(place, tmp_path):
    rows = [f"{place}/a.avi,what?,cat,train", "a.avi,who?,man,train"]
    folder = write_table(tmp_path / "data", "q.csv", rows, ["a.avi"])
    write_table(folder, "other.csv", [], [])
    send(folder, place)
    config = config_of("table", place, tmp_path / "p")
    with pytest.raises(DataError, match=r"found other\.csv, q\.csv; name it with data\.annotat"):
        prepare(config)
    prepared = prepare(config.model_copy(update={"annotations": f"{place}/q.csv"}))
    assert prepared.split("train").media.id == ["a.avi"]


@pytest.mark.long
def test_missing_videos_and_files_are_named(place, tmp_path):
    send(write_msvd(tmp_path / "data", stems=ODD_STEMS, videos=(1, 3, 4, 5)), place)
    config = config_of("msvd_qa", place, tmp_path / "p")
    with pytest.raises(DataError, match=r"1 of 5 videos are missing \(2 of 7 questions\)") as error:
        prepare(config)
    assert f"row 2: video 2 of train (2 questions): no file video/{ODD_STEMS[2]}.avi" in str(
        error.value
    )
    with pytest.raises(DataError, match=rf"^{place}: one table .* is needed, found none"):
        prepare(config_of("table", place, tmp_path / "p"))
    storage.open_folder(place).remove("val_qa.json")
    with pytest.raises(DataError, match=rf"no file {place}/val_qa\.json \(did you mean"):
        prepare(config)


@pytest.mark.long
def test_damaged_annotations_are_named_by_their_location(place, tmp_path):
    folder = write_msvd(tmp_path / "data")
    (folder / "val_qa.json").write_text("[1, 2")
    send(folder, place)
    with pytest.raises(DataError, match=rf"^{place}/val_qa\.json is not valid JSON"):
        prepare(config_of("msvd_qa", place, tmp_path / "p"))


@pytest.mark.long
@pytest.mark.parametrize("video", ["../x.avi", "video/../../x.avi", "/etc/x.avi", "gs://o/x.avi"])
def test_a_name_that_leaves_the_root_is_refused(place, tmp_path, video):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "q.csv").write_text(f"video,question,answer,split\n{video},what?,cat,train\n")
    (tmp_path / "x.avi").touch()
    send(folder, place)
    send(folder, f"{place}/inside")
    for location in (folder, place, f"{place}/inside"):
        with pytest.raises(DataError, match=r"x\.avi leaves the data root"):
            prepare(config_of("table", location, tmp_path / "p", allow_missing=True))


@pytest.mark.long
def test_an_annotation_file_that_is_too_large_is_refused_unread(place, tmp_path, monkeypatch):
    folder = write_msvd(tmp_path / "data")
    send(folder, place)
    monkeypatch.setattr(roots, "MAX_FILE_BYTES", 100)
    said = "train_qa.json is larger than 100 bytes"
    with requests() as watched:
        for location in (folder, place):
            with pytest.raises(DataError, match=f"^{location}/{said}"):
                prepare(config_of("msvd_qa", location, tmp_path / "p"))
    assert watched.downloads("train_qa.json") == 0


@pytest.mark.long
@pytest.mark.parametrize("where", ["no-such-bucket/data", f"{BUCKET}/no-such-folder"])
def test_a_root_that_is_not_there_is_one_clear_error(place, tmp_path, where):
    location = f"{place.partition('//')[0]}//{where}"
    with pytest.raises(StorageError, match=rf"^{location} is absent or empty: is the bucket"):
        prepare(config_of("msvd_qa", location, tmp_path / "p"))


@pytest.mark.long
def test_a_set_is_drawn_on_a_disk_alone_and_read_where_it_is(place, tmp_path):
    config = config_of("synthetic", place, tmp_path / "p")
    with pytest.raises(DataError, match=f"^{place} has no generated data set, and one is drawn on"):
        prepare(config)
    generate(tmp_path / "data", videos={"train": 2, "val": 1, "test": 1})
    send(tmp_path / "data", place)
    assert len(prepare(config).split("train").media.path) == 2


def test_doctor_says_that_it_needs_a_disk(place):
    with pytest.raises(DataError, match=f"copy {place} to a disk, or mount it"):
        doctor(data=place)


@pytest.mark.long
def test_a_file_is_here_for_as_long_as_it_is_used(place, tmp_path):
    write_msvd(tmp_path / "data", stems=ODD_STEMS)
    for number, stem in ODD_STEMS.items():
        (tmp_path / "data/video" / f"{stem}.avi").write_bytes(bytes([number]) * number)
    send(tmp_path / "data", place)
    for number, stem in ODD_STEMS.items():
        with on_this_disk(f"{place}/video/{stem}.avi") as path:
            assert path.read_bytes() == bytes([number]) * number
            assert left_on_the_disk(tmp_path / "cache") == [path]
        assert left_on_the_disk(tmp_path / "cache") == []
    with on_this_disk(tmp_path / "data/val_qa.json") as path:
        assert path == tmp_path / "data/val_qa.json"
    assert path.is_file(), "what is on a disk stays"


@pytest.fixture
def videos(place, tmp_path):
    """Two videos on the disk and in the object store, and a third that is none."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in (1, 2):
        barcode_video.write(folder / f"clip {number}#é.avi", 20 * number)
    (folder / "bad%20.avi").write_bytes(b"no video")
    send(folder, place)
    return folder


def decoded(paths):
    return Clips(Clips.Config(**dict(CLIPS))).arrays(Medium(path, path) for path in paths)


@pytest.mark.long
def test_videos_are_decoded_as_on_a_disk(place, videos, tmp_path):
    names = [f"clip {number}#é.avi" for number in (1, 2)]
    here = decoded(str(videos / name) for name in names)
    there = decoded(f"{place}/{name}" for name in names)
    for expected, found in zip(here, there, strict=True):
        np.testing.assert_array_equal(found["clips"], expected["clips"])
    extractor = ClipExtractor(CLIPS)
    try:
        for name in (*names, "bad%20.avi", "gone.avi"):
            expected = extractor.extract(Medium("1", str(videos / name)))
            found = extractor.extract(Medium("1", f"{place}/{name}"))
            np.testing.assert_equal(found.arrays, expected.arrays)
            same = expected.error.replace(str(videos), place)
            assert (found.outcome, found.facts) == (expected.outcome, expected.facts)
            assert (found.error, bool(same)) == (same, name not in names)
    finally:
        extractor.close()
    assert left_on_the_disk(tmp_path / "cache") == []


@pytest.mark.long
def test_storage_that_fails_is_no_fault_of_a_video(place, videos, monkeypatch):
    elsewhere = f"{place.partition('//')[0]}//no-such-bucket/x.avi"
    extractor = ClipExtractor(CLIPS)
    try:
        with pytest.raises(StorageError, match=r"no-such-bucket/x\.avi cannot be read: .*\n.*AWS_"):
            extractor.extract(Medium("1", elsewhere))
        if place.startswith("s3"):
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            storage._remote_folder.cache_clear()
            with pytest.raises(StorageError, match=r"bad%20\.avi cannot be read: .*NETWORK_CONN"):
                extractor.extract(Medium("1", f"{place}/bad%20.avi"))
    finally:
        extractor.close()


@pytest.mark.long
def test_frames_of_a_report_come_from_the_object_store(place, tmp_path):
    generate(tmp_path / "data", videos={"train": 1, "val": 1, "test": 1})
    send(tmp_path / "data", place)
    recipe = make_recipe(tmp_path, f"data.root={place}", "clips.cache=none")
    video = prepare(recipe.data).split("val").media.id[0]
    footage = Footage(recipe)
    footage.load([video])
    (path,) = prepare(recipe.data).split("val").media.path
    there = tmp_path / "data" / path.removeprefix(f"{place}/")
    (expected,) = processor_of(recipe).arrays([Medium("1", str(there))])
    np.testing.assert_array_equal(footage.clips[video], expected["clips"])


def write_recipe(folder: Path, name: str, root: str, **clips) -> Path:
    raw = raw_recipe(folder) | {"name": name}
    raw["data"] |= {"root": root, "prepared": str(folder / f"{name}-prepared")}
    raw["clips"] |= clips
    raw["stages"] = [raw["stages"][1] | {"init_from": None, "epochs": 1}]
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


def recipe_in(file: Path) -> Recipe:
    return parse(yaml.safe_load(file.read_text()))


def command(verb: str, recipe: Path, *words: str) -> str:
    process = Command(verb, *words, log=recipe.with_suffix(f".{verb}.log"))
    process.ends_well()
    return process.said()


@pytest.mark.ray
@pytest.mark.slow
def test_videos_in_an_object_store_give_the_same_store_and_answers(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv(machine.CACHE_FOLDER, str(cache))
    generate(tmp_path / "data", videos=VIDEOS)
    with STORES["s3"]():
        place = f"s3://{BUCKET}/my-data"
        send(tmp_path / "data", place)
        here = write_recipe(tmp_path, "here", str(tmp_path / "data"))
        there = write_recipe(tmp_path, "there", place)
        command("extract", here, str(here))
        command("train", there, str(there))
        stores = [Store.open(store_location(recipe_in(file))) for file in (here, there)]
        assert content(stores[0].path) == content(stores[1].path)
        assert left_on_the_disk(cache) == []
        with requests() as watched:
            extract(recipe_in(there), progress=lambda *_: pytest.fail("it extracts again"))
        assert not any(".avi" in line for line in watched.lines), "sizes come from the listing"

        streamed = write_recipe(tmp_path, "streamed", place, cache="none")
        command("train", streamed, str(streamed))
        runs = [tmp_path / "runs" / name for name in ("there", "streamed")]
        command("evaluate", there, str(runs[0]), "--split", "test")
        rows = pq.read_table(runs[0] / "evaluate/test/predictions.parquet").to_pylist()
        assert len(rows) == VIDEOS["test"] * 7
        metrics = [[json.loads(x) for x in (r / "metrics.jsonl").open()] for r in runs]
        losses = [[row["loss"] for row in m if row["kind"] == "train"] for m in metrics]
        assert losses[0] == losses[1], "decoded while training runs, the same pictures"

        split = prepare(recipe_in(there).data).split("test")
        video = split.media.path[split.media.id.index(rows[0]["video_id"])]
        assert video.startswith(f"{place}/")
        answers = msvqa.from_pretrained(runs[0]).answer(video, rows[0]["question"])
        assert [answer.text for answer in answers] == rows[0]["top"]
        with pytest.raises(VideoError, match=rf"^{place}/gone\.avi: no such file"):
            msvqa.from_pretrained(runs[0]).answer(f"{place}/gone.avi", "what is it?")

        replaced = Path(video.replace(place, str(tmp_path / "data")))
        barcode_video.write(replaced, 25)
        send(tmp_path / "data", place)
        command("extract", there, str(there))
        facts = Store.open(stores[1].location).facts[rows[0]["video_id"]]
        assert facts["num_frames"] == 25, "another file under the same name"
        assert left_on_the_disk(cache) == []
