"""Captions that need the order of frames, and splits that share neither files nor scenes."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from msvqa.data.datasets.caption_files import CaptionFiles
from msvqa.data.datasets.synthetic_captions import (
    DIRECTIONS,
    LOOKS,
    MARKER,
    TEMPLATES,
    Scene,
    SyntheticCaptions,
    deal,
    draw,
    generate,
)
from msvqa.errors import DataError
from msvqa.prepare import prepare
from tests.captioned_shapes import SIZES, write_captioned


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioned") / "set"
    write_captioned(folder)
    return folder


def rows_of(root, name):
    return json.loads((root / f"{name}.json").read_text())


def frames_of(file):
    import av

    with av.open(str(file)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_every_direction_is_beside_the_one_that_it_is_backwards():
    every = {step: name for name, step in DIRECTIONS.items()}
    assert len(every) == 4 and all((-x, -y) in every for x, y in every)


def test_the_test_has_every_look_with_every_direction_once():
    scenes = deal(np.random.default_rng(0), 96)
    assert len(set(scenes)) == 96
    assert Counter(scene.look for scene in scenes) == dict.fromkeys(LOOKS, 4)


def centres(frames):
    """Return where something red is in frames (F, H, W, 3): x and y (F, 2)."""
    frames = frames.astype(int)
    redness = frames[..., 0] - frames[..., 1:].max(axis=3)
    return np.array([np.argwhere(seen > 60).mean(axis=0)[::-1] for seen in redness])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_shape_moves_as_the_caption_says(direction):
    scene = Scene("red square", direction)
    assert scene.captions[0] == f"a red square goes {direction}"
    path = centres(draw(scene, np.random.default_rng(3)))
    moved = path[-1] - path[0]
    assert np.allclose(moved, 24 * np.array(DIRECTIONS[direction]), atol=2.5)
    assert np.abs(path[len(path) // 2] - 24).max() < 4, "the frame in the middle tells nothing"


def test_looks_differ_by_more_than_other_drawings_of_them(root):
    """Every two shapes cover other pixels, wherever the shape is."""
    rng, covers = np.random.default_rng(0), {}
    for look in LOOKS[:6]:
        frame = draw(Scene(look, "left"), rng)[0].astype(int)
        red = frame[..., 0] - frame[..., 1:].max(axis=2) > 60
        down, across = np.argwhere(red).mean(axis=0).round().astype(int)
        covers[look] = np.roll(red, (24 - down, 24 - across), (0, 1))
    shapes = list(covers.values())
    apart = [(a ^ b).sum() for n, a in enumerate(shapes) for b in shapes[:n]]
    assert min(apart) > 25


def test_the_test_is_there_backwards_with_the_same_captions(root):
    forward, reverse = rows_of(root, "test"), rows_of(root, "backwards")
    assert [r["caption"] for r in forward] == [r["caption"] for r in reverse]
    assert all(len(row["caption"]) == len(TEMPLATES) for row in forward)
    first, last = frames_of(root / forward[0]["video"]), frames_of(root / reverse[0]["video"])
    assert np.abs(first[::-1].astype(int) - last).mean() < 6
    assert np.abs(first.astype(int) - last).mean() > np.abs(first[::-1].astype(int) - last).mean()


def test_images_have_captions_of_looks_and_places(root):
    images = [row for row in rows_of(root, "train") if "image" in row]
    assert len(images) == SIZES["train_images"]
    assert np.asarray(Image.open(root / images[0]["image"])).shape == (48, 48, 3)
    first, second = images[0]["caption"]
    assert first.startswith("a red square") and second == first.replace("a ", "a picture of a ", 1)


def test_rows_name_what_their_captions_say_by_kinds(root):
    for name in ("train", "test", "backwards", "pictures"):
        for row in rows_of(root, name):
            words = row["caption"][0].split()
            assert all(word in words for word in row["kinds"].values())
            expected = {"color", "shape"} | ({"direction"} if "video" in row else set())
            expected |= {"place"} if "far" in words else set()
            assert {*row["kinds"]} == expected


def test_a_set_whose_rows_name_no_kinds_is_read_as_before(root, tmp_path):
    other = tmp_path / "earlier"
    shutil.copytree(root, other)
    for file in other.glob("*.json"):
        rows = json.loads(file.read_text())
        if isinstance(rows, list):
            file.write_text(json.dumps([{k: r[k] for k in r if k != "kinds"} for r in rows]))
    tables = []
    for number, place in enumerate((root, other)):
        fields = {"root": str(place), "prepared": str(tmp_path / str(number))}
        tables.append(prepare(SyntheticCaptions.Config(**fields, **SIZES)).split("test").examples)
    assert "kinds" not in tables[1].table.column_names
    assert tables[0].table.drop_columns(["kinds"]).equals(tables[1].table)


def test_pictures_show_things_where_their_captions_say(root):
    red = [row for row in rows_of(root, "pictures") if "red" in row["caption"][0]]
    assert len({row["caption"][0] for row in red}) > 1
    for row in red:
        ((x, y),) = centres(np.asarray(Image.open(root / row["image"]))[None]) - 24
        place = row["caption"][0].partition(" far ")[2]
        step = DIRECTIONS.get(place, (0, 0))
        along, beside = x * step[0] + y * step[1], abs(x * step[1]) + abs(y * step[0])
        assert (along > 2 and beside < 6) if place else max(abs(x), abs(y)) < 6


def test_pictures_are_read_by_those_alone_who_name_them(root, tmp_path):
    rows = rows_of(root, "pictures")
    assert len(rows) == SIZES["pictures"]
    assert {row["caption"][0].partition(" far ")[0] for row in rows} == {
        f"a {look}" for look in LOOKS
    }
    named = {"train": ("train.json", "pictures.json")}
    counts = []
    for number, files in enumerate((None, named)):
        place = str(tmp_path / str(number))
        config = CaptionFiles.Config(
            name="caption_files", root=str(root), files=files, prepared=place
        )
        counts.append(len(prepare(config).split("train")))
    assert counts == [28, 28 + SIZES["pictures"]]


def test_caption_files_reads_it_too(root, tmp_path):
    own = SyntheticCaptions.Config(root=str(root), prepared=str(tmp_path / "a"), **SIZES)
    other = CaptionFiles.Config(name="caption_files", root=str(root), prepared=str(tmp_path / "b"))
    tables = [prepare(config).split("test").examples.table for config in (own, other)]
    assert tables[0].equals(tables[1])
    assert len(tables[0]) == 16 * len(TEMPLATES)


def test_equal_arguments_make_equal_files_and_a_set_is_drawn_once(root, tmp_path):
    config = SyntheticCaptions.Config(root=str(tmp_path / "again"), **SIZES)
    SyntheticCaptions(config).generate()
    sets = [
        {p.relative_to(top): p.read_bytes() for p in top.rglob("*") if p.is_file()}
        for top in (root, tmp_path / "again")
    ]
    assert sets[0] == sets[1]
    settings = json.loads((tmp_path / "again" / MARKER).read_text())["settings"]
    assert settings == {**SIZES, "drawing_seed": 0}
    before = (tmp_path / "again" / MARKER).stat().st_mtime_ns
    SyntheticCaptions(config).generate()
    assert (tmp_path / "again" / MARKER).stat().st_mtime_ns == before


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(DataError, match=r"name another folder, or with data\.name=caption_files"):
        generate(tmp_path, SyntheticCaptions.Config(root=str(tmp_path), **SIZES))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_set_of_another_version_is_refused(root, tmp_path):
    other = tmp_path / "earlier"
    shutil.copytree(root, other)
    (other / MARKER).write_text('{"settings": {}}')
    config = SyntheticCaptions.Config(root=str(other), prepared=str(tmp_path / "p"), **SIZES)
    with pytest.raises(DataError, match=r"generated\.json is of a set that another version"):
        prepare(config)
