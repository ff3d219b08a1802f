"""Captions that need the order of frames, and splits that share neither files nor scenes."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from msvqa.data.datasets.caption_files import CaptionFiles
from msvqa.data.datasets.synthetic_captions import (
    LOOKS,
    MARKER,
    SPEEDS,
    STEPS,
    TEMPLATES,
    Move,
    Scene,
    SyntheticCaptions,
    backwards,
    deal,
    draw,
    generate,
    motions,
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


def test_every_motion_is_beside_the_one_that_it_is_backwards():
    every = motions()
    assert len(every) == len(set(every)) == 12
    assert all(backwards(motion) in every and backwards(motion) != motion for motion in every)


def test_every_look_has_every_motion():
    scenes = deal(np.random.default_rng(0), 96)
    assert len(set(scenes)) == 96
    assert set(Counter(scene.look for scene in scenes).values()) == {12}
    assert set(Counter(scene.motion for scene in scenes).values()) == {8}
    assert {scene.look for scene in deal(np.random.default_rng(0), 144)} == set(LOOKS)


@pytest.mark.parametrize("direction", STEPS)
def test_a_shape_moves_as_the_caption_says(direction):
    scene = Scene("red square", (Move("quickly", direction), Move("slowly", "left")))
    frames = draw(scene, np.random.default_rng(3)).astype(int)
    redness = frames[..., 0] - frames[..., 1:].max(axis=3)
    down, across = np.array([np.argwhere(seen > 60).mean(axis=0) for seen in redness]).T
    half, distance = len(frames) // 2, SPEEDS["quickly"] * STEPS[direction]
    assert across[half] - across[0] == pytest.approx(distance, abs=2)
    assert across[-1] - across[half] == pytest.approx(-SPEEDS["slowly"], abs=2)
    assert np.ptp(down) < 1
    expected = f"after a quick {direction}ward move the red square goes slowly left"
    assert scene.captions[0] == expected


def test_the_test_is_there_backwards_with_the_same_captions(root):
    forward, reverse = rows_of(root, "test"), rows_of(root, "backwards")
    assert [r["caption"] for r in forward] == [r["caption"] for r in reverse]
    assert all(len(row["caption"]) == len(TEMPLATES) for row in forward)
    first, last = frames_of(root / forward[0]["video"]), frames_of(root / reverse[0]["video"])
    assert np.abs(first[::-1].astype(int) - last).mean() < 6
    assert np.abs(first.astype(int) - last).mean() > np.abs(first[::-1].astype(int) - last).mean()


def test_images_have_captions_of_looks_alone(root):
    images = [row for row in rows_of(root, "train") if "image" in row]
    assert len(images) == SIZES["train_images"]
    assert images[0]["caption"] == ["a red square", "a picture of a red square"]
    assert np.asarray(Image.open(root / images[0]["image"])).shape == (48, 48, 3)


def test_pictures_are_read_by_those_alone_who_name_them(root, tmp_path):
    rows = rows_of(root, "pictures")
    assert len(rows) == SIZES["pictures"]
    assert {row["caption"][0] for row in rows} == {f"a {look}" for look in LOOKS}
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
