"""Frames of media of all kinds: which ones, where from, and what is wrong with those that fail."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from msvqa.data.chance import Chance
from msvqa.data.examples.captions import Captions
from msvqa.data.frame_changes import CHANGES
from msvqa.data.media import COLUMNS, Media
from msvqa.data.medium import Medium
from msvqa.data.processors.frames import Frames
from msvqa.data.sampling import candidates, middles
from msvqa.data.split import Split
from msvqa.data.store import Store, write_index, write_shard
from msvqa.engine.inputs import DirectSource, StoreSource
from msvqa.errors import VideoError
from tests import barcode_video

SIZE = {"size_px": 96, "fit": "stretch"}
LENGTH = 40


def frames(**fields):
    return Frames(Frames.Config(**(SIZE | fields)))


def shown(arrays):
    return [barcode_video.read(frame) for frame in arrays["frames"]]


def made(processor, *media):
    return list(processor.arrays(media))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video of 40 frames, 30 in a second."""
    return str(barcode_video.write(tmp_path_factory.mktemp("video") / "v.avi", LENGTH))


@pytest.fixture
def image(tmp_path):
    """A picture of number 7, twice as wide as high."""
    picture = np.full((240, 320, 3), 128, np.uint8)
    barcode_video.draw(picture, 7)
    file = tmp_path / "i%03d.png"  # no pattern of names
    Image.fromarray(picture).save(file)
    return file


@pytest.mark.long
@pytest.mark.parametrize("draw", ["segments", "middle"])
def test_evaluation_sees_the_middle_frames(video, draw):
    processor = frames(frames=4, draw=draw)
    (arrays,) = made(processor, Medium("v", video))
    assert shown(processor.draw(arrays, None)) == middles(LENGTH, 4).tolist()


@pytest.mark.long
def test_training_draws_a_frame_of_each_part_by_chance(video):
    processor = frames(frames=4, candidates=5)
    (arrays,) = made(processor, Medium("v", video))
    parts = candidates(LENGTH, 4, 5).reshape(4, 5)
    drawn = [shown(processor.draw(arrays, Chance(0, epoch).of_medium(3))) for epoch in range(8)]
    assert all(number in part for found in drawn for number, part in zip(found, parts, strict=True))
    assert len({tuple(found) for found in drawn}) > 1
    assert drawn[2] == shown(processor.draw(arrays, Chance(0, 2).of_medium(3)))


@pytest.mark.long
def test_shuffled_frames_are_the_same_in_another_order(video):
    processor = frames(frames=8, order="shuffled")
    (arrays,) = made(processor, Medium("v", video))
    seen = shown(processor.draw(arrays, None))
    assert sorted(seen) == middles(LENGTH, 8).tolist() != seen
    assert shown(processor.draw(arrays, None)) == seen
    drawn = [shown(processor.draw(arrays, Chance(0, epoch).of_medium(3))) for epoch in range(4)]
    parts = candidates(LENGTH, 8, 5).reshape(8, 5)
    for found in drawn:
        assert all(n in part for n, part in zip(sorted(found), parts, strict=True))
    assert len({tuple(np.argsort(found)) for found in drawn}) == 4
    other = {"frames": arrays["frames"] // 2}
    assert shown(processor.draw(other, None)) != seen, "the pixels choose the order"


@pytest.mark.long
def test_frames_at_a_rate_are_those_shown_then(video):
    processor = frames(frames=4, draw="fps", fps=3.0)
    (arrays,) = made(processor, Medium("v", video))
    # 40 frames last 1.33 s: in the middle of each third of a second.
    assert shown(arrays) == [5, 15, 25, 35]


@pytest.mark.long
def test_a_span_is_sampled_as_a_video_of_its_own(video):
    processor = frames(frames=5, draw="middle")
    (arrays,) = made(processor, Medium("v", video, start=0.5, end=1.0))
    assert shown(arrays) == (15 + middles(15, 5)).tolist()
    (arrays,) = made(processor, Medium("v", video, start=1.0))
    assert shown(arrays) == (30 + middles(10, 5)).tolist()


@pytest.mark.long
def test_an_image_is_repeated(image):
    processor = frames(frames=3)
    (arrays,) = made(processor, Medium("i", str(image), "image"))
    assert shown(processor.draw(arrays, None)) == [7, 7, 7]


@pytest.mark.long
def test_a_folder_of_images_is_a_video_in_the_order_of_names(tmp_path):
    for number in range(6):
        picture = np.full((240, 320, 3), 128, np.uint8)
        barcode_video.draw(picture, number)
        Image.fromarray(picture).save(tmp_path / f"{number:03d}.jpg", quality=95)
    (tmp_path / "notes.txt").write_text("no image")
    processor = frames(frames=3, draw="middle")
    (arrays,) = made(processor, Medium("f", str(tmp_path), "frames"))
    assert shown(arrays) == middles(6, 3).tolist()


@pytest.mark.long
def test_the_square_in_the_middle_is_kept(tmp_path):
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 100:200] = 255
    Image.fromarray(picture).save(tmp_path / "i.png")
    medium = Medium("i", str(tmp_path / "i.png"), "image")
    (arrays,) = made(frames(frames=1, draw="middle", size_px=32, fit="crop"), medium)
    assert (arrays["frames"] == 255).all()


@pytest.mark.long
def test_crops_and_flips_are_of_all_frames_and_of_training_alone(image):
    processor = frames(frames=2, crop="random", flip=True, size_px=64)
    (arrays,) = made(processor, Medium("i", str(image), "image"))
    still = processor.draw(arrays, None)["frames"]
    drawn = [processor.draw(arrays, Chance(0, e).of_medium(0))["frames"] for e in range(6)]
    assert {found.shape for found in [still, *drawn]} == {(2, 64, 64, 3)}
    assert all((found[0] == found[1]).all() for found in drawn)
    assert len({found.tobytes() for found in [still, *drawn]}) == 7
    np.testing.assert_array_equal(still, processor.draw(arrays, None)["frames"])


@pytest.mark.long
def test_repeats_are_several_clips_of_training_each_drawn_anew(video):
    processor, single = frames(frames=4, repeats=3), frames(frames=4)
    (arrays,) = made(processor, Medium("v", video))
    drawn = processor.draw(arrays, Chance(0, 0).of_medium(0))["frames"]
    numbers = [[barcode_video.read(frame) for frame in clip] for clip in drawn]
    assert drawn.shape[:2] == (3, 4) and len({*map(tuple, numbers)}) == 3
    first = single.draw(arrays, Chance(0, 0).of_medium(0))["frames"]
    np.testing.assert_array_equal(drawn[0], first)
    still = processor.draw(arrays, None)["frames"]
    np.testing.assert_array_equal(still, single.draw(arrays, None)["frames"])
    assert processor.spec() == single.spec(), "of one store"


@pytest.mark.long
def test_random_changes_are_of_all_frames_and_of_training_alone(image):
    processor = frames(frames=2, rand_augment={"probability": 1.0}, size_px=64)
    (arrays,) = made(processor, Medium("i", str(image), "image"))
    still = processor.draw(arrays, None)["frames"]
    np.testing.assert_array_equal(still, frames(frames=2, size_px=64).draw(arrays, None)["frames"])
    state = torch.get_rng_state()
    drawn = [processor.draw(arrays, Chance(0, e).of_medium(0))["frames"] for e in range(6)]
    assert torch.equal(torch.get_rng_state(), state), "the numbers of a step are not touched"
    assert all((found[0] == found[1]).all() for found in drawn)
    assert len({found.tobytes() for found in [still, *drawn]}) == 7
    again = processor.draw(arrays, Chance(0, 3).of_medium(0))["frames"]
    np.testing.assert_array_equal(again, drawn[3])


@pytest.mark.long
def test_a_box_is_erased_in_training_alone_after_all_else_is_drawn(image):
    changes = {"crop": "random", "flip": True, "frames": 2, "size_px": 64}
    processor, whole = frames(random_erasing={"probability": 1.0}, **changes), frames(**changes)
    (arrays,) = made(processor, Medium("i", str(image), "image"))
    seen = [p.draw(arrays, None)["frames"] for p in (processor, whole)]
    np.testing.assert_array_equal(*seen)
    assert processor.spec() == whole.spec(), "of one store"
    boxes = []
    for epoch in range(6):
        erased, kept = (
            p.draw(arrays, Chance(0, epoch).of_medium(0))["frames"] for p in (processor, whole)
        )
        differs = (erased != kept).any(axis=-1)  # (T, H, W)
        rows, columns = (np.flatnonzero(differs.any(axis=axis)) for axis in ((0, 2), (0, 1)))
        boxes.append((rows[0], rows[-1], columns[0], columns[-1]))
        inside = differs[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert inside.mean() > 0.98, "one box, the same of both frames"
        again = processor.draw(arrays, Chance(0, epoch).of_medium(0))["frames"]
        np.testing.assert_array_equal(again, erased)
    assert len({*boxes}) == 6, "another one in each epoch"


@pytest.mark.long
@pytest.mark.parametrize("name", [*CHANGES])
def test_a_change_changes_and_is_least_at_strength_0(image, name):
    (arrays,) = made(frames(frames=1, size_px=64), Medium("i", str(image), "image"))
    pixels = torch.from_numpy(arrays["frames"][:1].copy()).permute(0, 3, 1, 2)
    pixels = pixels // 2 + torch.arange(64, dtype=torch.uint8)
    pixels[:, 1] //= 2  # not grey
    strong, weak = (CHANGES[name](pixels, part, 1) for part in (0.9, 0.0))
    assert strong.shape == pixels.shape and strong.dtype == torch.uint8
    assert (strong != pixels).any()
    if name not in ("autocontrast", "equalize", "invert", "posterize"):
        assert (weak.int() - pixels.int()).abs().max() <= 1


@pytest.mark.long
def test_views_take_other_candidates_of_each_part_and_training_one(video):
    processor, single = frames(frames=4, views=3), frames(frames=4)
    (arrays,) = made(processor, Medium("v", video))
    parts = candidates(LENGTH, 4, 5).reshape(4, 5)
    seen = processor.draw(arrays, None)["frames"]
    numbers = [[barcode_video.read(frame) for frame in view] for view in seen]
    assert numbers == parts[:, [0, 2, 4]].T.tolist()
    assert processor.spec() == single.spec(), "of one store"
    for chance in (Chance(0, 0), Chance(0, 1)):
        drawn = [p.draw(arrays, chance.of_medium(0))["frames"] for p in (processor, single)]
        np.testing.assert_array_equal(*drawn)
    np.testing.assert_array_equal(processor.shown(arrays), single.shown(arrays))


@pytest.mark.long
@pytest.mark.parametrize("shape", [(40, 120), (120, 40)])
def test_crops_are_the_ends_and_the_middle_of_the_longer_side(tmp_path, shape):
    picture = np.zeros((*shape, 3), np.uint8)
    long = np.argmax(shape)
    for third in range(3):
        np.moveaxis(picture, long, 0)[third * 40 : (third + 1) * 40] = 50 * (third + 1)
    Image.fromarray(picture).save(tmp_path / "i.png")
    medium = Medium("i", str(tmp_path / "i.png"), "image")
    processor = frames(frames=2, candidates=3, views=2, crops=3, size_px=32, fit="crop")
    (arrays,) = made(processor, medium)
    assert arrays["frames"].shape == processor.spec().arrays["frames"].shape
    seen = processor.draw(arrays, None)["frames"]
    assert seen.shape == (6, 2, 32, 32, 3)
    # In the middle of each: at its edge there is a little of its neighbour.
    assert seen[:, :, 16, 16, 0].T.tolist() == [[50, 100, 150] * 2] * 2
    chance = Chance(0, 0).of_medium(0)
    assert (processor.draw(arrays, chance)["frames"][:, 16, 16] == 100).all()
    moved = frames(
        frames=2, candidates=3, crops=3, size_px=32, store_px=32, fit="crop", crop="random",
        least_crop=0.9,
    )  # fmt: skip
    drawn = [moved.draw(arrays, Chance(0, n).of_medium(0))["frames"] for n in range(12)]
    assert {int(found[0, 16, 16, 0]) for found in drawn} == {50, 100, 150}
    assert (processor.shown(arrays)[0, :, 16, 16] == 100).all()
    assert processor.folder_name() == "frames-2x3-segments-32px-3crops"


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "content", "outcome"),
    [
        ("image", b"no picture", "bad_image"),
        ("image", None, "unreadable"),
        ("frames", None, "unreadable"),
        ("video", b"no video", "unreadable"),
        ("record", b"", "unfit"),
    ],
)
def test_bad_media_are_named_by_kind(tmp_path, kind, content, outcome):
    file = tmp_path / "bad.png"
    if content is not None:
        file.write_bytes(content)
    entry = frames(frames=2).extractor().extract(Medium("bad", str(file), kind))
    assert (entry.outcome, entry.arrays) == (outcome, None)
    assert str(file) in entry.error


@pytest.mark.long
def test_an_empty_folder_and_a_span_outside_are_named(tmp_path, video):
    extractor = frames(frames=2).extractor()
    entry = extractor.extract(Medium("e", str(tmp_path), "frames"))
    assert entry.outcome == "empty_folder"
    entry = extractor.extract(Medium("v", video, start=2.0, end=3.0))
    assert entry.outcome == "outside_video"
    assert "the span from 2 s to 3 s lies outside the video, which lasts 1.33 s" in entry.error


@pytest.mark.long
def test_a_rate_needs_times(tmp_path):
    for number in range(2):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{number}.png")
    with pytest.raises(VideoError, match="nobody knows when"):
        made(frames(draw="fps"), Medium("f", str(tmp_path), "frames"))


@pytest.mark.long
def test_a_store_gives_the_batches_of_no_store(tmp_path, video, image):
    processor = frames(frames=2, crop="random", flip=True, size_px=32)
    media = [
        Medium("v", video),
        Medium("s", video, "video", 0.2, 0.9),
        Medium("i", str(image), "image"),
    ]
    table = [vars(m) for m in media]
    split = Split(
        "train",
        Media(pa.Table.from_pylist(table, schema=COLUMNS), ""),
        Captions(Captions.schema().empty_table()),
        0,
    )
    spec, extractor = processor.spec(), processor.extractor()
    shard = write_shard(tmp_path / "s", 0, spec, map(extractor.extract, media), {})
    store = write_index(tmp_path / "s", spec, [shard], {})
    assert store.copies == []
    groups = [[0, 2], [1]]
    for chance in (None, Chance(1, 2)):
        stored = StoreSource(Store.open(store.location, spec), split, processor)
        direct = DirectSource(split, processor)
        for one, other in zip(
            stored.batches(groups, chance), direct.batches(groups, chance), strict=True
        ):
            np.testing.assert_array_equal(one["frames"], other["frames"])
            assert one["frames"].shape[1:] == (2, 32, 32, 3)


def test_shards_are_limited_by_bytes():
    small, large = frames(frames=1, draw="middle", size_px=16), frames(frames=64, size_px=256)
    assert small.spec().videos_per_shard == 256
    assert large.spec().videos_per_shard == 2


def test_a_processor_travels():
    processor = frames(frames=2)
    assert pickle.loads(pickle.dumps(processor)).config == processor.config


def test_what_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="candidates: must be odd"):
        frames(candidates=4)
    with pytest.raises(ValueError, match="store_px: 32 is less than size_px 96"):
        frames(store_px=32)
    with pytest.raises(ValueError, match="views: 6 are wanted, and 5 frames of each part"):
        frames(views=6)
    with pytest.raises(ValueError, match="views: 2 are wanted, and 1 frames of each part"):
        frames(views=2, draw="middle")
    with pytest.raises(ValueError, match="crops: 3 needs fit crop"):
        frames(crops=3, fit="stretch")
