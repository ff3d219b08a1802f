"""An image is one frame: in steps of images alone, and wherever a model is asked about media."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from msvqa.data.examples.captions import Captions
from msvqa.data.loader import training_batches
from msvqa.data.media import Media
from msvqa.data.order import Share, plan_epoch
from msvqa.data.split import Split
from msvqa.engine.asking import Question, ask
from msvqa.engine.inputs import Inputs
from msvqa.objectives.alignment import Alignment
from msvqa.objectives.distillation import Distillation, MaskConfig
from msvqa.recipe import BatchConfig
from tests.models.small_umt import FRAMES, SIZE_PX, TOKENS, make_batch, make_umt

KINDS = ["video", "image", "image", "video", "image"]


class Captioned(Captions):
    """Captions of which only the media count here."""

    def tensors(self, rows, chance=None):
        return {name: values[rows] for name, values in make_batch(len(KINDS)).items() if name in (
            "text", "text_length", "text_id",
        )}  # fmt: skip


def split_of(kinds):
    media = pa.FixedSizeListArray.from_arrays(pa.array(range(len(kinds)), pa.int64()), 1)
    return Split(
        name="test",
        media=Media(pa.table({"kind": pa.array(kinds, pa.string())}), ""),
        examples=Captioned(pa.table({"media": media})),
        expected=len(kinds),
    )


class Clips:
    """Frames of each medium, of an image one that is repeated."""

    def __init__(self, kinds):
        self.frames = make_batch(len(kinds))["frames"].clone()
        for row, kind in enumerate(kinds):
            if kind == "image":
                self.frames[row] = self.frames[row, :1]

    def batches(self, groups, chance=None):
        return ({"frames": self.frames[list(group)]} for group in groups)


@pytest.mark.parametrize("streams", ["mixed", "apart"])
def test_steps_of_images_alone_have_one_frame_of_each(streams):
    split, batch = split_of(KINDS), BatchConfig(examples=2, streams=streams)
    for seed in range(5):
        plan = plan_epoch(split, batch, seed=seed, epoch=0)
        for found in training_batches(split, Clips(KINDS), plan):
            times = 1 if found["is_image"].all() else FRAMES
            assert found["frames"].shape == (2, times, SIZE_PX, SIZE_PX, 3)
            if streams == "apart":
                assert found["is_image"].unique().numel() == 1


def test_what_a_mixed_step_shows_does_not_depend_on_the_number_of_workers():
    split, batch = split_of(KINDS), BatchConfig(examples=4)
    for seed in range(5):
        plan = plan_epoch(split, batch, seed=seed, epoch=0)
        whole = list(training_batches(split, Clips(KINDS), plan))
        shares = [Share(worker, 2) for worker in range(2)]
        parts = [list(training_batches(split, Clips(KINDS), plan, share)) for share in shares]
        micro = list(training_batches(split, Clips(KINDS), plan, accumulate=4))
        for step, found in enumerate(whole):
            both = torch.cat([part[step]["frames"] for part in parts])
            torch.testing.assert_close(both, found["frames"])
            each = torch.cat([part["frames"] for part in micro[4 * step : 4 * step + 4]])
            torch.testing.assert_close(each, found["frames"])


def test_media_without_images_say_nothing_of_them():
    split = split_of(["video"] * 5)
    plan = plan_epoch(split, BatchConfig(examples=2), seed=0, epoch=0)
    for found in training_batches(split, Clips(["video"] * 5), plan):
        assert "is_image" not in found and found["frames"].shape[1] == FRAMES


@pytest.mark.parametrize("method", ["encode_video", "match"])
def test_what_is_said_of_a_medium_depends_on_nothing_beside_it(method):
    objective = Alignment(Alignment.Config(), make_umt())
    inputs = Inputs(split=split_of(KINDS), source=Clips(KINDS))
    question = Question.of(objective, method)
    key = {"encode_video": "vector", "match": "score"}[method]

    def answers(size):
        found = ask(objective, inputs, question, range(len(KINDS)), size)
        return found[key][np.argsort(found["row"])]

    alone = answers(1)
    for size in (2, 5):
        np.testing.assert_allclose(answers(size), alone, rtol=1e-4, atol=1e-6)
    image = {"frames": inputs.source.frames[1:2, :1]}
    if method == "encode_video":
        expected = objective.encode_video(image)["vector"][0].detach().numpy()
        np.testing.assert_allclose(alone[1], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["attention", "tube", "random"])
def test_images_are_masked_at_a_ratio_of_their_own(kind, monkeypatch):
    mask = MaskConfig(kind=kind, ratio=0.75, image_ratio=0.5)
    model = make_umt(("text", "fusion", "projections"))
    objective, seen = Distillation(Distillation.Config(mask=mask), model).train(), []
    watch = model.watch
    monkeypatch.setattr(
        model,
        "watch",
        lambda batch, visible: seen.append(visible.shape[1]) or watch(batch, visible),
    )
    videos = make_batch()
    images = videos | {"frames": videos["frames"][:, :1], "is_image": torch.ones(4).bool()}
    mixed = videos | {"is_image": torch.tensor([True, False, True, False])}
    for batch in (videos, images, mixed):
        loss = objective(batch)["loss"]
        assert loss.isfinite()
        loss.backward()
    assert seen == [FRAMES * TOKENS // 4, TOKENS // 2, FRAMES * TOKENS // 4]
