"""Masks on the page: what a student sees, what its teacher attends to, and why something is not
there."""

import shutil
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from msvqa.models.layers.clip_tower import ClipTower
from msvqa.objectives.alignment import Alignment
from msvqa.objectives.distillation import Distillation
from msvqa.page.footage import Footage
from msvqa.page.masks import VEIL, has_masks, show_masks
from msvqa.prepare import prepare_stages
from msvqa.recipe import Recipe
from msvqa.report import report
from msvqa.run import Run
from tests.captioned_shapes import STAGES, small_quickstart, write_captioned
from tests.tiny import make_checkpoint

PX, GRID, TIMES = 96, 4, 6
"""Of a frame on the page; patches across and down; frames."""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("masks") / "set"
    write_captioned(folder)
    return folder


def make_run(root: Path, runs: Path, *overrides: str) -> Run:
    """Return a run of the quick start whose stages have checkpoints of untrained models."""
    recipe = small_quickstart(root, runs, *overrides)
    run = Run.create(recipe)
    for stage, prepared in zip(recipe.stages, prepare_stages(recipe), strict=True):
        torch.manual_seed(0)
        make_checkpoint(run.stage_dir(stage.name), recipe, prepared, 1, finished=True)
    return run


@pytest.fixture(scope="module")
def run(root, tmp_path_factory) -> Run:
    return make_run(root, tmp_path_factory.mktemp("runs"))


def shown(run: Run, stage: str):
    footage = Footage(run.recipe.of_stage(STAGES.index(stage)))
    return show_masks(run.checkpoint(stage), footage)


def pixels(picture) -> np.ndarray:
    """Return the frames of a strip (T, H, W, 3)."""
    content = Image.open(BytesIO(b64decode(picture.uri.partition(",")[2])))
    strip = np.asarray(content).astype(int)
    return np.stack([strip[:, n * (PX + 2) :][:, :PX] for n in range(TIMES)])


def test_a_fifth_of_each_frame_is_seen_and_the_attention_is_beside_it(run):
    found = shown(run, "distil")
    assert len(found) == 3 and len({medium.said for medium in found}) == 3
    for medium in found:
        assert medium.said.startswith("video videos/") and medium.said.endswith(" of val")
        (frames, seen, attention) = (pixels(picture) for _, picture in medium.strips)
        patch = PX // GRID
        apart = np.abs(frames - seen).reshape(TIMES, GRID, patch, GRID, patch, 3)
        is_whole = apart.mean(axis=(2, 4, 5)) < 4  # (T, P, P)
        # 16 - int(16 · 0.8) of 16
        assert (is_whole.sum(axis=(1, 2)) == 4).all(), "the rest is nearly grey"
        grey = seen[~is_whole.repeat(patch, axis=1).repeat(patch, axis=2)]
        assert np.abs(grey - VEIL).mean() < 35
        assert np.abs(attention - attention.mean(axis=-1, keepdims=True)).mean() > 10, "colours"
        labels = [label for label, _ in medium.strips]
        assert labels[1] == "what the student sees: 25% of the patches"
        assert "(6% if even)" in labels[2]


def test_they_are_the_same_every_time(run):
    assert shown(run, "distil") == shown(run, "distil")


def test_stages_that_hide_nothing_have_none(run):
    of = {"alignment": Alignment, "distillation": Distillation}
    objectives = [stage.objective for stage in run.recipe.stages]
    found = [has_masks(of[config.name], config) for config in objectives]
    assert dict(zip(STAGES, found, strict=True)) == {
        "teacher": False, "distil": True, "align": True, "whole": False,
    }  # fmt: skip


@pytest.mark.long
def test_the_page_has_a_section_for_both_stages(run):
    page = Path(report(run.path)).read_text(encoding="utf-8")
    assert page.count("Stage distil: mask attention, ratio 0.8") == 1
    assert page.count("Stage align: mask attention, ratio 0.8") == 1
    assert page.count('<p class="label">what the teacher attends to') == 6
    assert "Stage whole: mask" not in page and "No masks" not in page


def test_without_a_teacher_its_attention_is_missed_and_the_reason_said(root, tmp_path):
    alone = make_run(
        root, tmp_path, "stages.align.objective.mask.kind=tube", "stages.align.init_from=null",
        "stages.align.fresh=[]",
        "stages.align.parts.teacher=absent",
    )  # fmt: skip
    (medium, *_) = shown(alone, "align")
    assert len(medium.strips) == 2
    assert "the stage has no teacher (parts.teacher: absent)" in medium.said
    frames, seen = (pixels(picture) for _, picture in medium.strips)
    hidden = np.abs(frames - seen).mean(axis=-1) > 8
    assert (hidden == hidden[:1]).mean() > 0.7, "a tube: the same patches of all frames"


def test_a_teacher_whose_file_is_gone_is_named_on_the_page(root, tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    save_teacher(small_quickstart(root, tmp_path / "first"), teacher)
    run = make_run(root, tmp_path, f"model.teacher.weights={teacher}", "name=filed")
    assert len(shown(run, "distil")[0].strips) == 3
    teacher.unlink()
    page = Path(report(run.path)).read_text(encoding="utf-8")
    assert "No masks: " in page and "as its part &#39;teacher&#39;, which is not there" in page


def save_teacher(recipe: Recipe, path: Path) -> None:
    torch.manual_seed(1)
    save_file(ClipTower(recipe.model.teacher).state_dict(), path)


def test_without_media_the_reasons_are_on_the_page(root, tmp_path):
    own = tmp_path / "set"
    shutil.copytree(root, own)
    run = make_run(own, tmp_path / "runs")
    shutil.rmtree(tmp_path / "prepared")
    page = Path(report(run.path)).read_text(encoding="utf-8")
    assert "No masks: No video of the validation or test split is there any more." in page
    assert "is absent or incomplete: it has no prepare.json" in page
