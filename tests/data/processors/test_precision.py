"""Number formats of frozen encoders: what is chosen, what a store keeps of it, and what stays."""

import math

import numpy as np
import pytest
import torch

from msvqa.data import store as stores
from msvqa.data.medium import Medium
from msvqa.data.processors.frame_features import FrameFeatures
from msvqa.data.processors.frozen_encoder import FrozenEncoder, Trial
from msvqa.data.store import Entry, Store, made_as, write_index, write_shard
from msvqa.errors import StoreError
from msvqa.models.encoders.resnet import ResNet
from tests import barcode_video

SMALL = ResNet.Config(depth=10, base_width=8, stem="small", scale="unit")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def features(**fields):
    given = {"encoder": SMALL, "encoder_width": 64, "frames": 3, "size_px": 32, "fit": "stretch"}
    return FrameFeatures(FrameFeatures.Config(**given | fields))


def encoded(precision):
    return FrozenEncoder("frame", SMALL, 0, precision).encode(PIXELS, 4, "float32")


def test_features_in_bf16_are_alike_and_those_in_float32_stay_as_they_were():
    exact = FrozenEncoder("frame", SMALL, 0).encode(PIXELS, 4, "float32")
    np.testing.assert_array_equal(encoded("float32"), exact)
    np.testing.assert_array_equal(encoded("auto"), exact)
    brief = encoded("bf16")
    assert not np.array_equal(brief, exact)
    cosine = torch.nn.functional.cosine_similarity(torch.tensor(brief), torch.tensor(exact))
    assert cosine.min() >= 0.999


@pytest.mark.parametrize(
    ("cosine", "gain", "precision", "problem"),
    [
        (0.9999, 2.0, "bf16", ""),
        (0.9980, 2.0, "float32", "cosine of 0.9980"),
        (math.nan, 2.0, "float32", "cosine of nan"),
        (0.9999, 1.02, "float32", "1.02 times as fast"),
        (math.nan, math.nan, "float32", "nothing could be read"),
    ],
)
def test_bf16_is_chosen_where_it_is_faster_and_as_good(cosine, gain, precision, problem):
    trial = Trial("encoder", cosine, gain)
    assert trial.precision == precision
    assert problem in trial.problem
    assert bool(trial.problem) == (precision == "float32")


@pytest.mark.long
def test_a_trial_compares_real_frames(tmp_path):
    path = barcode_video.write(tmp_path / "v.avi", 90)
    extractor = features().extractor()
    (trial,) = extractor.trials(Medium("v", str(path)))
    extractor.close()
    assert trial.part == "encoder"
    assert 0.99 < trial.cosine < 1.0
    assert trial.gain > 0


def test_a_store_says_bf16_and_nothing_of_float32():
    usual, brief, open_ = (features(precision=p) for p in ("float32", "bf16", "auto"))
    assert "precision" not in features().spec().encoders["encoder"]
    assert usual.spec() == features().spec() == open_.settled({"encoder": "float32"}).spec()
    assert brief.spec() == open_.settled({"encoder": "bf16"}).spec() != usual.spec()
    assert not open_.spec().is_settled
    # A store that was made in float32 is found by a recipe that leaves it open.
    assert open_.folder_name() == usual.folder_name() != brief.folder_name()
    assert usual.settled({"encoder": "bf16"}).spec() == usual.spec(), "what is named stays"


def written(folder, precision):
    spec = features(precision=precision).spec()
    arrays = {name: np.zeros(array.shape, array.dtype) for name, array in spec.arrays.items()}
    shard = write_shard(folder, 0, spec, [Entry(video_id="v", outcome="ok", arrays=arrays)], {})
    return spec, shard


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_what_a_store_was_made_with_is_kept(tmp_path, precision):
    open_ = features(precision="auto").spec()
    assert made_as(tmp_path, open_) is None
    spec, shard = written(tmp_path, precision)
    assert made_as(tmp_path, open_) == spec, "by a shard"
    assert made_as(tmp_path, features(precision="auto", frames=4).spec()) is None
    write_index(tmp_path, spec, [shard], {})
    assert Store.open(tmp_path, open_).spec == spec
    (tmp_path / stores.shard_name(0) / stores.SHARD).write_text("[]")
    assert made_as(tmp_path, open_) == spec, "by the index"
    other = {"float32": "bf16", "bf16": "float32"}[precision]
    with pytest.raises(StoreError, match=r"encoders\.encoder\.precision"):
        Store.open(tmp_path, features(precision=other).spec())
