"""Folders on disks and in real object stores, and the cache of a machine."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from msvqa import machine, storage
from msvqa.cache import check_cache, fetch
from msvqa.engine.pace import keep_pace, kept_pace
from msvqa.errors import CacheError, IncompleteError, RecipeError, StorageError
from msvqa.machine import IN_USE
from msvqa.recipe import parse
from msvqa.storage import RemoteFolder, open_folder
from tests.engine.test_pace import pace
from tests.object_store import BUCKET, STORES
from tests.tiny import raw_recipe


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, in which nothing is in use."""
    monkeypatch.setenv("MSVQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "_held", {})


@pytest.fixture(params=STORES)
def place(request, servers, cache, tmp_path):
    """A folder of an object store."""
    return f"{request.param}://{BUCKET}/{tmp_path.name}"


@pytest.fixture(params=["disk", *STORES])
def location(request, servers, cache, tmp_path):
    """A folder on a disk or of an object store."""
    if request.param == "disk":
        return str(tmp_path / "folder")
    return f"{request.param}://{BUCKET}/{tmp_path.name}"


def write(folder, name, text):
    file = folder.path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def another_process(location):
    """The folder as another process sees it: with working files of its own."""
    return RemoteFolder(location) if storage.is_remote(location) else open_folder(location)


def test_what_was_put_is_there_for_others(location):
    folder = open_folder(location)
    write(folder, "stage/step-1/weights", "12345")
    write(folder, "stage/step-1/info", "{}")
    write(folder, "stage/.step-2/weights", "half")
    folder.put("stage/step-1", last="info")
    other = another_process(location)
    assert other.sizes("stage") == {"stage/step-1/weights": 5, "stage/step-1/info": 2}
    assert other.get("stage/step-1/weights").read_text() == "12345"
    assert other.read_start("stage/step-1/weights", 3) == b"123"
    assert other.read_start("stage/step-1/weights", 9) == b"12345"
    assert not other.get("stage/step-2/weights").exists()
    assert other.sizes("absent") == {}


def test_news_arrive(location):
    folder, other = open_folder(location), another_process(location)
    for text in ("first", "second"):
        write(folder, "metrics", text)
        folder.put("metrics")
        assert other.get("metrics").read_text() == text
    folder.remove("metrics")
    assert not other.get("metrics").exists()


def test_what_a_process_writes_itself_is_not_replaced_by_what_it_sent(location):
    folder = open_folder(location)
    write(folder, "metrics", "sent")
    folder.put("metrics")
    write(folder, "metrics", "sent, and more since")
    assert folder.get("metrics").read_text() == "sent, and more since"


def test_rename_and_copy(location, tmp_path):
    folder = open_folder(location)
    for name in ("a/x", "a/marker", "b/old"):
        write(folder, name, name)
        folder.put(name)
    folder.rename("a", "b")
    assert sorted(another_process(location).sizes()) == ["b/marker", "b/x"]
    copy = open_folder(storage.join(location, "copy"))
    copy.copy("b", folder, last="marker")
    assert sorted(another_process(copy.location).sizes()) == ["b/marker", "b/x"]


def test_trying_to_write_leaves_nothing(location):
    folder = open_folder(location)
    folder.path.mkdir(exist_ok=True)
    folder.try_writing()
    assert list(folder.path.iterdir()) in ([], [folder.path / IN_USE])
    if storage.is_remote(location):
        found, path = storage.filesystem(location)
        assert not found.get_file_info(f"{path}/{storage.TRIED}-{os.getpid()}").is_file
        with pytest.raises(StorageError, match="cannot be written"):
            RemoteFolder(f"{location.partition('//')[0]}//no-such-bucket/x").try_writing()


def test_a_folder_without_its_marker_is_not_whole(place):
    folder = open_folder(place)
    write(folder, "shard/array", "123")
    folder.put("shard/array")
    with pytest.raises(IncompleteError, match=r"shard is absent or incomplete: it has no marker"):
        fetch(f"{place}/shard", "marker")


@pytest.mark.long
def test_the_marker_is_sent_last_and_is_away_while_files_are_replaced(place, monkeypatch):
    folder, sent = open_folder(place), []
    upload = storage._upload

    def watched(source: Path, *to):
        sent.append((source.name, "marker" in str(another_process(place).sizes("shard"))))
        upload(source, *to)

    monkeypatch.setattr(storage, "_upload", watched)
    for _ in range(2):
        for name in ("a", "marker", "z"):
            write(folder, f"shard/{name}", name)
        folder.put("shard", last="marker")
    assert sent == [("a", False), ("z", False), ("marker", False)] * 2


@pytest.mark.long
def test_processes_of_a_machine_fetch_once(place, tmp_path):
    folder = open_folder(place)
    for name in ("array", "marker"):
        write(folder, f"shard/{name}", name)
    folder.put("shard", last="marker")
    found = fetch(f"{place}/shard", "marker")
    assert (found / "array").read_text() == "array"
    before = (found / "array").stat().st_ino
    code = "import sys; from msvqa.cache import fetch; print(fetch(sys.argv[1], 'marker'))"
    command = [sys.executable, "-c", code, f"{place}/shard"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert Path(done.stdout.strip()) == found
    assert (found / "array").stat().st_ino == before, "the same file, not another one"


@pytest.mark.long
def test_what_was_replaced_is_fetched_again(place):
    folder = open_folder(place)
    texts = []
    for text in ("old", "new"):
        write(folder, "shard/array", text)
        write(folder, "shard/marker", "{}")
        folder.put("shard", last="marker")
        texts.append((fetch(f"{place}/shard", "marker") / "array").read_text())
        time.sleep(1.1)  # S3 tells times in whole seconds
    assert texts == ["old", "new"]


@pytest.mark.long
def test_the_cache_is_bounded(place, tmp_path, monkeypatch):
    monkeypatch.setenv("MSVQA_CACHE_GB", "0.00001")  # 10 kB
    folder = open_folder(place)
    for name in "abc":
        write(folder, f"{name}/array", name * 4000)
        write(folder, f"{name}/marker", "{}")
        folder.put(name, last="marker")
    first, second = (fetch(f"{place}/{name}", "marker") for name in "ab")
    with pytest.raises(CacheError, match=r"c needs 4e-06 GB in .* 8\.\d*e-06 GB in use: raise"):
        fetch(f"{place}/c", "marker")
    machine.release(first)  # as if the process that used it had ended
    assert (fetch(f"{place}/c", "marker") / "array").read_text() == "c" * 4000
    assert not first.exists()
    assert second.exists()


@pytest.mark.long
def test_working_files_of_dead_processes_are_swept_out(place, tmp_path):
    code = (
        "import os, sys; from msvqa.storage import open_folder; "
        "print(open_folder(sys.argv[1]).path, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, place]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    left = Path(done.stdout.strip())
    assert left.is_dir(), "a killed process cannot clean up"
    RemoteFolder(place)
    assert not left.exists()


def test_a_file_that_may_not_be_written_is_explained(place):
    folder = RemoteFolder(f"{place.partition('//')[0]}//no-such-bucket/x")
    write(folder, "metrics", "1")
    said = r"//no-such-bucket/x cannot be written.*\n.*AWS_ENDPOINT_URL"
    with pytest.raises(StorageError, match=said):
        folder.put("metrics")


def test_what_was_only_got_is_not_sent_back(place):
    folder, other = open_folder(place), RemoteFolder(place)
    write(folder, "logs/worker0.log", "first")
    folder.put("logs")
    other.get("logs/worker0.log")
    write(folder, "logs/worker0.log", "first, and more")
    write(other, "logs/worker1.log", "mine")
    folder.put("logs")
    other.put("logs")
    assert RemoteFolder(place).get("logs/worker0.log").read_text() == "first, and more"


def test_a_folder_may_travel(place):
    folder = pickle.loads(pickle.dumps(RemoteFolder(place)))
    assert folder is open_folder(place), "one set of working files for each process"


def test_a_fetch_that_was_killed_is_done_again(place, monkeypatch):
    monkeypatch.setenv("MSVQA_CACHE_GB", "0.000006")
    folder = open_folder(place)
    write(folder, "shard/array", "x" * 4000)
    write(folder, "shard/marker", "{}")
    folder.put("shard", last="marker")
    found = fetch(f"{place}/shard", "marker")
    (found / "array").write_text("x" * 3000)  # half of it, as a killed process leaves it
    assert (fetch(f"{place}/shard", "marker") / "array").read_text() == "x" * 4000


def test_what_may_change_beside_a_marker_is_not_fetched_with_it(place):
    folder = open_folder(place)
    write(folder, "store.json", "{}")
    folder.put("store.json")
    found = []
    for media in (40, 50):
        keep_pace(place, pace(media=media))
        found.append(fetch(place, "store.json", marker_alone=True))
    assert found[0] == found[1], "the store is the same"
    assert (found[0] / "store.json").is_file() and not (found[0] / "speed.json").exists()
    storage._remote_folder.cache_clear()
    assert kept_pace(SimpleNamespace(location=place)) == pace(media=50)


def test_a_store_larger_than_the_cache_is_refused(place, monkeypatch):
    monkeypatch.setenv("MSVQA_CACHE_GB", "1")
    check_cache(place, 999_000_000)
    check_cache("/a/disk", 5_000_000_000)
    with pytest.raises(CacheError, match=r"has 5 GB, but a machine keeps at most 1 GB"):
        check_cache(place, 5_000_000_000)


@pytest.mark.parametrize(
    "location",
    ["s3://key:secret@b/x", "s3://b/x?endpoint_override=h:1", "s3://b/a b", "ftp://h/x", "s3:/b/x"],
)
def test_locations_take_neither_secrets_nor_options(location):
    with pytest.raises(StorageError) as error:
        storage.absolute(location)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "override", ["runs=ftp://host/x", "clips.store=s3://", "data.word_vectors=s3://b/x"]
)
def test_locations_are_checked_with_the_recipe(tmp_path, override):
    with pytest.raises(RecipeError, match=f"- {override.partition('=')[0]}: "):
        parse(raw_recipe(tmp_path), [override])


@pytest.mark.long
def test_google_storage_without_credentials_is_explained_in_time(servers, cache, monkeypatch):
    monkeypatch.setattr(storage, "RETRIES_S", 2)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    for name in ("HOME", "GCE_METADATA_ROOT"):  # where Google's machines and users have others
        monkeypatch.setenv(name, "/nowhere")
    folder, start = RemoteFolder(f"gs://{BUCKET}/x"), time.monotonic()
    with pytest.raises(StorageError, match=r"gs://bucket/x cannot be listed: .*\n.*GOOGLE_APPLI"):
        folder.sizes()
    assert time.monotonic() - start < 30
