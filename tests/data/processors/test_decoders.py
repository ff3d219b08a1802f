"""The field `decoder` of every section that has one: what it costs, and what is said of it."""

from typing import get_args

import numpy as np
import pytest

from msvqa import extract as extracting
from msvqa.checks.recipe import check
from msvqa.data.medium import Medium
from msvqa.data.nvdec_needs import lacking
from msvqa.data.processors import processor as processors
from msvqa.data.processors.clips import Clips
from msvqa.data.processors.frames import Frames
from msvqa.data.processors.processor import processor_here, processor_of
from msvqa.data.readers import DECODERS
from msvqa.data.video import IsolatedDecoder, decode, look
from msvqa.engine.cluster import Resources
from msvqa.errors import RecipeError
from msvqa.extract import check_extraction
from msvqa.recipe import Decoder, parse
from tests import barcode_video
from tests.back_ends import needs_torchcodec
from tests.tiny import make_recipe, raw_recipe

ENCODER = {"name": "resnet", "depth": 10}
FEATURES = {
    "appearance": ENCODER, "motion": {"name": "resnext3d", "depth": 14, "groups": 2},
    "appearance_width": 512, "motion_width": 2048,
}  # fmt: skip
FRAME_FEATURES = {"name": "frame_features", "encoder": ENCODER, "encoder_width": 512}
SECTIONS = {
    "clips": {"clips": {"decoder": "nvdec"}},
    "features": {"clips": {"decoder": "nvdec"}, "features": FEATURES},
    "processor": {"processor": {"name": "frames", "decoder": "nvdec"}},
    "frame_features": {"processor": FRAME_FEATURES | {"decoder": "nvdec"}},
}


def recipe_with(folder, change):
    raw = raw_recipe(folder)
    if "processor" in change:
        del raw["clips"]
    return parse(raw | change)


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine without a GPU, and nothing said yet."""
    lacking.cache_clear()
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(processors, "_said", set())
    yield
    lacking.cache_clear()


def test_the_recipe_names_the_back_ends_that_there_are():
    assert get_args(Decoder) == DECODERS


@pytest.mark.parametrize("section", SECTIONS)
def test_what_is_lacking_is_said_before_ray_starts(no_gpu, tmp_path, section):
    with pytest.raises(RecipeError) as caught:
        check_extraction(recipe_with(tmp_path, SECTIONS[section]))
    (problem,) = caught.value.problems
    key = "clips" if section in ("clips", "features") else "processor"
    assert problem.startswith(f"{key}.decoder: torch")
    assert "or use the decoder pyav" in problem


def test_training_says_so_too_of_each_section(no_gpu, tmp_path):
    own = "stages.0.processor={name: clips, decoder: nvdec, num_clips: 2, frames_per_clip: 4}"
    recipe = make_recipe(tmp_path, "clips.decoder=nvdec", own)
    with pytest.raises(RecipeError) as caught:
        check(recipe)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "clips.decoder", "stages.0.processor.decoder",
    ]  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
def test_extraction_gives_each_decoder_its_part_of_a_gpu(tmp_path, section):
    recipe = recipe_with(tmp_path, SECTIONS[section])
    pool = extracting._workers(recipe, Resources(8, 2))
    assert (pool.workers, pool.gpus_per_worker) == (8, 0.25)
    on_cpus = make_recipe(tmp_path)
    assert extracting._workers(on_cpus, Resources(8, 2)).gpus_per_worker == 0


@pytest.mark.parametrize("section", SECTIONS)
def test_single_media_are_read_by_pyav_where_there_is_no_gpu(no_gpu, tmp_path, caplog, section):
    recipe = recipe_with(tmp_path, SECTIONS[section])
    assert processor_of(recipe).decoder == "nvdec"
    assert processor_here(recipe).decoder == "pyav"
    assert "videos are read by pyav, not by nvdec as in training: torch" in caplog.text
    assert processor_here(make_recipe(tmp_path)).decoder == "pyav"


@pytest.fixture
def here(monkeypatch):
    """Decode in this process, on the CPU."""
    monkeypatch.setattr(IsolatedDecoder, "__call__", lambda self, *given: decode(*given))
    monkeypatch.setattr(IsolatedDecoder, "look", lambda self, *given: look(*given))


@needs_torchcodec
@pytest.mark.parametrize("kind", ["clips", "frames"])
def test_who_read_a_video_is_kept_and_said_once(no_gpu, here, tmp_path, caplog, kind):
    paths = [tmp_path / name for name in ("a.avi", "b.avi", "c.mp4")]
    for path in paths:
        barcode_video.encode(path, 20, "libx264" if path.suffix == ".mp4" else "mpeg4", {})
    media = [Medium(path.stem, str(path)) for path in paths]
    config = {"decoder": "nvdec", "size_px": 96}
    made = {"clips": Clips(Clips.Config(**config)), "frames": Frames(Frames.Config(**config))}
    extractor = made[kind].extractor()
    entries = [extractor.extract(medium) for medium in media]
    assert ["by_pyav" in entry.facts for entry in entries] == [True, True, False]
    shards = [{"videos": [{"id": e.video_id, **e.facts} for e in entries]}]
    extracting._say_what_pyav_read(shards, "nvdec")
    said = "2 of 3 videos were read by pyav, not by nvdec: its packets do not say for certain"
    assert said in caplog.text
    caplog.clear()
    assert all(len(extractor.arrays(medium)) == 1 for medium in media)
    assert caplog.text.count("is read by pyav, and not by the decoder that was asked for") == 1
    assert "a.avi is read" in caplog.text


@needs_torchcodec
def test_a_store_holds_the_frames_that_pyav_would(here, tmp_path):
    path = barcode_video.encode(tmp_path / "v.mp4", 60, "libx264", {"bf": "2", "g": "12"})
    medium = Medium("v", str(path))
    found, expected = (
        Clips(Clips.Config(decoder=name, size_px=96)).extractor().extract(medium)
        for name in ("nvdec", "pyav")
    )
    assert found.facts == expected.facts
    difference = np.abs(found.arrays["clips"].astype(int) - expected.arrays["clips"])
    assert difference.max() <= 3
