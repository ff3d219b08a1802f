"""Frame features: which frames are encoded, what becomes of few and of many, who is named."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from msvqa.checks.recipe import width_problems
from msvqa.data.medium import Medium
from msvqa.data.processors.frame_features import FrameFeatures
from msvqa.data.processors.frozen_encoder import open_encoder
from msvqa.data.processors.vectors import Vectors
from msvqa.data.sampling import middles, strided
from msvqa.data.video import decode
from msvqa.errors import StoreError, VideoError
from tests import barcode_video
from tests.tiny import make_recipe

ENCODER = {"name": "resnet", "depth": 10, "base_width": 4, "stem": "small", "scale": "unit"}
WIDTH, SIZE_PX, LENGTH, RATE = 32, 48, 100, 30


def features(seed=0, encoder=(), **fields):
    from msvqa.models.encoders.resnet import ResNet

    given = {"encoder_width": WIDTH, "size_px": SIZE_PX, "fit": "stretch", "dtype": "float32"}
    config = ResNet.Config(**{**ENCODER, **dict(encoder)})
    return FrameFeatures(FrameFeatures.Config(encoder=config, **(given | fields)), seed=seed)


def made(processor, medium):
    (arrays,) = processor.arrays([medium])
    return arrays


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video of 100 frames, 30 in a second."""
    return str(barcode_video.write(tmp_path_factory.mktemp("video") / "v.avi", LENGTH))


def encoded(video, frames, processor):
    """Return what the encoder makes of some frames of the video."""
    pixels = decode(video, lambda _: np.array(frames), [SIZE_PX]).frames[SIZE_PX]
    encoder = open_encoder("frame", processor.config.encoder, processor.seed)
    with torch.inference_mode():
        device = next(encoder.parameters()).device
        return encoder(torch.from_numpy(pixels).to(device)).float().cpu().numpy()


@pytest.mark.long
def test_a_frame_of_each_second_is_encoded_and_the_last_one_repeated(video):
    processor = features(frames=5)
    arrays = made(processor, Medium("v", video))
    expected = encoded(video, [15, 45, 75, 75, 75], processor)
    np.testing.assert_allclose(arrays["vectors"], expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(expected[:3], axis=0).max() > 1e-3, "frames differ"
    assert (arrays["num_frames"], arrays["num_frames"].dtype) == (3, np.int64)


@pytest.mark.long
def test_middles_are_filled_up_with_zeros(video):
    arrays = made(features(frames=5, sampling="middles"), Medium("v", video))
    assert arrays["vectors"][:3].any(axis=1).all()
    assert not arrays["vectors"][3:].any()
    assert arrays["num_frames"] == 3


@pytest.mark.long
@pytest.mark.parametrize(("sampling", "rule"), [("strided", strided), ("middles", middles)])
def test_of_more_frames_some_are_encoded_as_features_would_be_drawn(
    video, sampling, rule, tmp_path
):
    processor = features(frames=4, fps=10.0, sampling=sampling)
    arrays = made(processor, Medium("v", video))
    shown = np.arange(1, LENGTH, 3)  # in the middle of each tenth of a second
    np.testing.assert_allclose(
        arrays["vectors"],
        encoded(video, shown[rule(len(shown), 4)], processor),
        rtol=1e-4,
        atol=1e-5,
    )
    assert arrays["num_frames"] == 4
    # The same as `vectors` makes of the features of all frames.
    np.save(tmp_path / "all.npy", encoded(video, shown, processor))
    vectors = Vectors(Vectors.Config(width=WIDTH, frames=4, sampling=sampling))
    drawn = made(vectors, Medium("v", str(tmp_path / "all.npy")))
    np.testing.assert_allclose(drawn["vectors"], arrays["vectors"], rtol=1e-4, atol=1e-5)
    assert drawn["num_frames"] == arrays["num_frames"]


@pytest.mark.long
def test_a_span_has_frames_of_its_own_and_an_image_one(video, tmp_path):
    processor = features(frames=2)
    span = made(processor, Medium("v[1-3]", video, "video", 1.0, 3.0))
    np.testing.assert_allclose(
        span["vectors"], encoded(video, [45, 75], processor), rtol=1e-4, atol=1e-5
    )
    Image.new("RGB", (64, 64), (200, 10, 10)).save(tmp_path / "i.png")
    image = made(processor, Medium("i", str(tmp_path / "i.png"), "image"))
    assert image["num_frames"] == 1
    np.testing.assert_array_equal(image["vectors"][0], image["vectors"][1])


@pytest.mark.long
def test_a_store_has_the_shapes_that_are_made_and_models_are_told(video):
    processor = features(frames=3, dtype="float16")
    entry = pickle.loads(pickle.dumps(processor)).extractor().extract(Medium("v", video))
    assert (entry.outcome, entry.error) == ("ok", "")
    assert {"bytes", "sha256", "num_frames"} <= set(entry.facts)
    spec = processor.spec()
    found = {name: (array.shape, array.dtype.name) for name, array in entry.arrays.items()}
    assert found == {name: (array.shape, array.dtype) for name, array in spec.arrays.items()}
    assert processor.sizes() == {"width": WIDTH, "frames": 3}
    assert processor.pictures.config.fps == 1.0


@pytest.mark.long
def test_weights_of_a_file_or_of_the_seed_make_the_store(video, tmp_path):
    first, other = features(frames=2), features(frames=2, seed=1)
    assert first.folder_name() == features(frames=2).folder_name() != other.folder_name()
    medium = Medium("v", video)
    np.testing.assert_array_equal(
        made(first, medium)["vectors"], made(features(frames=2), medium)["vectors"]
    )
    torch.save(open_encoder("frame", first.config.encoder, 0).state_dict(), tmp_path / "w.pth")
    weighted = features(frames=2, seed=1, encoder={"weights": str(tmp_path / "w.pth")})
    np.testing.assert_allclose(
        made(weighted, medium)["vectors"], made(first, medium)["vectors"], rtol=1e-4, atol=1e-5
    )
    assert "weights_sha256" in weighted.spec().encoders["encoder"]
    (tmp_path / "w.pth").unlink()
    with pytest.raises(StoreError, match=r"no file of weights .*w\.pth"):
        weighted.spec()


@pytest.mark.long
def test_what_has_no_frames_is_named(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    entry = features().extractor().extract(Medium("b", str(tmp_path / "broken.mp4")))
    assert entry.arrays is None
    assert "broken.mp4" in entry.error
    with pytest.raises(VideoError, match="a record has no frames"):
        made(features(), Medium("r", str(tmp_path / "broken.mp4"), "record", 0, 4))


def test_a_width_that_is_not_the_encoders_is_named(tmp_path):
    encoder = "{name: resnet, depth: 10, base_width: 4}"
    section = f"processor={{name: frame_features, encoder: {encoder}, encoder_width: 5}}"
    recipe = make_recipe(tmp_path, "clips={}", section)
    assert width_problems(recipe) == ["processor.encoder_width: is 5, resnet gives 32"]
