"""Augmentation of clips: what moves, what stays, and that chance is a function of the seed."""

import pytest
import torch

from msvqa.data.augmentation import augment
from msvqa.errors import RecipeError
from msvqa.recipe import AugmentationConfig, parse
from tests.tiny import raw_recipe


def clips(videos=3):
    generator = torch.Generator().manual_seed(0)
    shape = (videos, 2, 4, 20, 20, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_without_amounts_nothing_changes_and_no_random_number_is_drawn():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    given = clips()
    assert augment(given, AugmentationConfig()) is given
    assert torch.equal(torch.get_rng_state(), before)


def test_equal_seeds_give_equal_clips_and_others_others():
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(augment(clips(), AugmentationConfig(shift=0.2, zoom=0.2)))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_shift_moves_all_frames_of_a_video_alike_and_repeats_the_border():
    given = clips(videos=8)
    torch.manual_seed(0)
    moved = augment(given, AugmentationConfig(shift=0.25))
    ways = set()
    for before, after in zip(given, moved, strict=True):
        rows = (torch.arange(20)[None] - torch.arange(-5, 6)[:, None]).clamp(0, 19)
        fits = [
            (y, x)
            for y in range(11)
            for x in range(11)
            if torch.equal(before[:, :, rows[y]][:, :, :, rows[x]], after)
        ]
        assert len(fits) == 1
        ways.add(fits[0])
    assert len(ways) > 4, "every video has a way of its own"


def test_zoom_keeps_the_middle_and_enlarges_or_shrinks():
    given = torch.zeros(40, 1, 2, 21, 21, 3, dtype=torch.uint8)
    given[:, :, :, 5:16, 5:16] = 255
    torch.manual_seed(0)
    sizes = augment(given, AugmentationConfig(zoom=0.4))[:, 0, 0, 10, :, 0].gt(0).sum(dim=1)
    assert sizes.min() < 10 and sizes.max() > 13
    assert (sizes % 2 == 1).all(), "symmetric about the middle"


def test_features_cannot_be_augmented(tmp_path):
    raw = raw_recipe(tmp_path)
    raw["stages"][0]["augmentation"] = {"shift": 0.1}
    parse(raw)
    raw["features"] = {"appearance_hdf5": "a.h5", "motion_hdf5": "m.h5"}
    with pytest.raises(RecipeError, match=r"stages.0.augmentation: it needs pixels"):
        parse(raw)
