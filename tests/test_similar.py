"""Two videos compared, and the most alike found: in files, in tables, with what is wrong named."""

import os

import numpy as np
import pytest

import msvqa
from msvqa.cli import main
from msvqa.embedder import Embedder
from msvqa.errors import DataError, RunError
from msvqa.merge import KEPT, write_result
from msvqa.metrics import cosines
from msvqa.predict import compare, predict
from msvqa.prepare import prepare
from msvqa.run import Run
from msvqa.similar import Sought, read_embeddings, similar
from tests.similar_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return make_run(tmp_path_factory.mktemp("similar"))


@pytest.fixture(scope="module")
def model(run) -> Embedder:
    return msvqa.from_pretrained(run.location, device="cpu")


@pytest.fixture(scope="module")
def ids(run) -> list[str]:
    return prepare(run.recipe.data).split("train").media.id


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for number, rows in enumerate(np.random.default_rng(0).normal(size=(4, 5, 16))):
        np.save(folder / f"{number}.npy", rows.astype(np.float32))
    (folder / "bad.npy").write_bytes(b"no array")
    return folder


def test_a_file_with_the_frames_and_title_of_an_id_is_embedded_alike(run, model, ids, tmp_path):
    split = prepare(run.recipe.data).split("train")
    row = int(split.examples.media[0, 1])
    (arrays,) = model.processor.arrays([split.media.medium(row)])
    np.save(tmp_path / "same.npy", arrays["vectors"][: int(arrays["num_frames"])])
    title = split.examples.table["titles"][0].as_py()[1]
    found = model.embed(tmp_path / "same.npy", title)
    assert found.shape == (8,)
    assert found == pytest.approx(model.embed(split.media.id[row]), abs=1e-6)
    assert np.abs(found - model.embed(tmp_path / "same.npy", "")).max() > 1e-4, "titles count"


def test_two_videos_are_as_alike_as_the_cosine_says(run, model, ids, files, capsys):
    both = np.stack([model.embed(ids[0]), model.embed(files / "1.npy", "")])
    expected = cosines(both, np.array([[0, 1]]))[0]
    assert model.similarity(ids[0], files / "1.npy") == pytest.approx(expected, abs=1e-6)
    assert main(["predict", run.location, ids[0], str(files / "1.npy")]) == 0
    assert f"cosine {expected:.4f}" in capsys.readouterr().out


def test_what_cannot_be_compared_is_named(run, ids, files, tmp_path):
    with pytest.raises(DataError, match=rf"'{ids[0]}0' is no file.*did you mean '{ids[0][:5]}"):
        compare(run.location, (ids[0] + "0", ids[1]))
    with pytest.raises(DataError, match=r"absent\.npy: there is no such file"):
        compare(run.location, (ids[0], str(tmp_path / "absent.npy")))
    with pytest.raises(DataError, match=r"bad\.npy: no array"):
        compare(run.location, (ids[0], str(files / "bad.npy")))
    with pytest.raises(RunError, match="3 titles for 2 videos"):
        compare(run.location, (ids[0], ids[1]), ["a", "b", "c"])
    with pytest.raises(RunError, match="answers no questions"):
        predict(run.location, ids[0], "what is it?")


def test_files_are_embedded_once_until_they_change(run, model, files):
    query = str(files / "0.npy")
    found = similar(run.location, query, Sought(folder=files, top=3, title=""))
    assert found.ids[0] == "0.npy" and found.cosines[0] == pytest.approx(1, abs=1e-6)
    assert found.searched == 4 and [*found.bad] == ["bad.npy"]
    assert similar(run.location, "0.npy", Sought(folder=files, top=9)).ids[0] != "0.npy"
    assert sorted(p.name for p in files.iterdir()) == [*(f"{n}.npy" for n in range(4)), "bad.npy"]
    (kept,) = (run.path / "evaluate").glob(f"similar-*/{KEPT}")
    before, _ = read_embeddings(kept)
    np.save(files / "2.npy", np.load(files / "0.npy"))
    os.utime(files / "2.npy", (1, 1))
    (files / "3.npy").unlink()
    found = similar(run.location, "0.npy", Sought(folder=files, top=9))
    assert found.ids[0] == "2.npy" and found.searched == 2
    after, _ = read_embeddings(kept)
    assert after.ids == ["0.npy", "1.npy", "2.npy"]
    assert (after.vectors[1] == before.vectors[1]).all()


def test_a_table_of_embeddings_is_searched(run, tmp_path, files, capsys):
    vectors = np.random.default_rng(1).normal(size=(6, 8))
    write_result(tmp_path / "out", list("abcdef"), vectors)
    found = similar(run.location, "c", Sought(folder=tmp_path / "out", top=2))
    assert len(found.ids) == 2 and "c" not in found.ids and found.searched == 5
    expected = cosines(vectors, np.array([[2, "abcdef".index(name)] for name in found.ids]))
    assert found.cosines == pytest.approx(expected, abs=1e-6)
    words = ["similar", run.location, "c", "--in", str(tmp_path / "out"), "--top", "2"]
    assert main(words) == 0
    assert found.ids[0] in capsys.readouterr().out
    with pytest.raises(DataError, match="'x' is no file, and no video of"):
        similar(run.location, "x", Sought(folder=tmp_path / "out"))
    write_result(tmp_path / "wide", ["a"], np.ones((1, 9)))
    with pytest.raises(DataError, match=r"embeddings of 9 numbers, and those of .* have 8"):
        similar(run.location, str(files / "0.npy"), Sought(folder=tmp_path / "wide"))


def test_one_place_to_look_is_needed(run, tmp_path):
    for sought in (Sought(), Sought(folder=tmp_path, on="pairs")):
        with pytest.raises(RunError, match="--in FOLDER or --on NAME"):
            similar(run.location, "a", sought)
    with pytest.raises(DataError, match="no such folder"):
        similar(run.location, "a", Sought(folder=tmp_path / "absent"))
