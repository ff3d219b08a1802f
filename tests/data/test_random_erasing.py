"""Random erasing: how often, how much of a frame, with what, and what stays as it was."""

import numpy as np
import pytest
from pydantic import ValidationError

from msvqa.data.random_erasing import MEAN, STD, RandomErasingConfig, random_erasing

WHITE = np.full((3, 64, 64, 3), 255, np.uint8)
ALWAYS = {"probability": 1.0}


def erased(config, seed, frames=WHITE):
    return random_erasing(frames, RandomErasingConfig(**config), np.random.default_rng(seed))


def test_a_function_of_the_numbers_of_the_generator_that_leaves_the_given_frames():
    first, again, other = (erased(ALWAYS, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (WHITE == 255).all()


def test_a_quarter_of_the_clips_lose_a_part_between_the_bounds():
    parts = []
    for seed in range(1200):
        found = erased({"mode": "const"}, seed)
        assert (found == found[:1]).all(), "the same box in all frames"
        parts.append((found[0] != 255).any(axis=-1).mean())
    lost = np.array([part for part in parts if part])
    # 4 standard deviations of a binomial share
    assert abs(len(lost) / len(parts) - 0.25) < 4 * (0.25 * 0.75 / 1200) ** 0.5
    # Whole pixels: a side of a box is half a pixel longer or shorter at most.
    assert 0.013 < lost.min() < 0.04 and 0.28 < lost.max() < 0.35
    assert abs(lost.mean() - (0.02 + 1 / 3) / 2) < 0.025, "long boxes do not fit now and then"


def test_pixels_are_noise_of_variance_one_to_a_model_and_another_one_in_each_frame():
    found = erased(ALWAYS | {"least_area": 0.3}, 3)
    box = found[:, (found != 255).any(axis=(0, 2, 3))][:, :, (found != 255).any(axis=(0, 1, 3))]
    assert (box[0] != box[1]).mean() > 0.9
    scaled = (box.reshape(-1, 3).astype(float) - MEAN) / STD
    # A little less than 1, for it ends at 0 and at 255.
    assert np.abs(scaled.mean(axis=0)).max() < 0.1 and 0.85 < scaled.std() < 1.02
    flat = erased(ALWAYS | {"mode": "const"}, 3)
    assert {*map(tuple, flat[flat[..., 0] != 255])} == {(124, 116, 104)}


def test_areas_out_of_order_are_refused():
    with pytest.raises(ValidationError, match=r"least_area: 0\.5 is more than largest_area 0\.3"):
        RandomErasingConfig(least_area=0.5, largest_area=0.3)
