"""Captions: which one of a medium is drawn, and how they become numbers."""

import numpy as np
import pytest
import torch

from msvqa.data.chance import Chance
from msvqa.data.loader import training_batches
from msvqa.data.order import Share, plan_epoch
from msvqa.data.text import Vocabulary
from msvqa.prepare import prepare, summary
from msvqa.recipe import BatchConfig, parse_data
from tests.caption_folder import write_captions

ROWS = {
    "train": [
        {"video": "a.mp4", "caption": ["A red ball.", "a ball rolls", "it is red"]},
        {"image": "b.png", "caption": "a dog"},
        {"video": "a.mp4", "caption": "the last one"},
    ],
    "val": [{"video": "c.mp4", "caption": ["a red cat", "an unheard word"]}],
}


@pytest.fixture
def prepared(tmp_path):
    write_captions(tmp_path / "data", ROWS)
    return prepare(
        parse_data("caption_files", [], root=str(tmp_path / "data"), prepared=str(tmp_path / "p"))
    )


def test_a_medium_holds_all_its_captions_in_training_and_held_out_each_is_a_row(prepared):
    train, val = prepared.split("train"), prepared.split("val")
    assert train.media.id == ["a.mp4", "b.png"]
    assert train.media.kind == ["video", "image"]
    assert train.examples.count.tolist() == [4, 1]
    assert val.examples.medium.tolist() == [0, 0]
    assert val.examples.shown(np.array([0, 1]))["caption"] == ["a red cat", "an unheard word"]
    assert prepared.info["splits"]["train"]["texts"] == 5
    assert "train: 2 of 2 captions, 2 of 2 videos, 0 missing" in summary(prepared)


def test_kinds_of_words_stay_with_their_captions_and_are_absent_where_none_is_named(
    prepared, tmp_path
):
    assert "kinds" not in prepared.split("val").examples.table.column_names
    rows = [
        {"video": "c.mp4", "caption": ["a red cat", "it is red"], "kinds": {"color": "red"}},
        {"video": "d.mp4", "caption": "a dog"},
        {"video": "c.mp4", "caption": "a cat runs", "kinds": {"noun": "cat", "verb": "runs"}},
    ]
    root = write_captions(tmp_path / "named", {"train": ROWS["train"], "val": rows})
    named = prepare(parse_data("caption_files", [], root=str(root), prepared=str(tmp_path / "n")))
    val = named.split("val").examples
    assert val.shown(np.arange(4)) == {
        "caption": ["a red cat", "it is red", "a cat runs", "a dog"],
        "kinds": [{"color": "red"}, {"color": "red"}, {"noun": "cat", "verb": "runs"}, None],
    }
    assert [*val.shown(np.arange(0))] == ["caption", "kinds"]
    # Read with the words of a model they are still there.
    assert val.read_with(named.lexicon, trains=False).shown(np.array([3]))["kinds"] == [None]
    train = named.split("train").examples
    assert [*train.shown(np.arange(2))] == ["caption"], "no row of training names any"
    assert type(train).joined([train, val]).shown(np.array([0, 2]))["kinds"][1]["color"] == "red"


def test_words_are_those_of_training_in_order_of_appearance(prepared):
    vocabulary = prepared.lexicon.of(Vocabulary)
    assert vocabulary.tokens[2:6] == ["a", "red", "ball", "rolls"]
    tensors = prepared.split("val").examples.tensors(np.array([0, 1]))
    assert tensors["text"].tolist() == [[2, 3, 1], [1, 1, 1]]
    assert tensors["text_length"].tolist() == [3, 3]


def test_what_is_drawn_depends_on_seed_epoch_and_row_alone(prepared):
    captions = prepared.split("train").examples
    both = np.array([0, 1])

    def drawn(seed, epoch, rows):
        return captions.chosen(rows, Chance(seed, epoch))

    assert drawn(0, 3, both) == drawn(0, 3, both)
    assert drawn(0, 3, both)[:1] == drawn(0, 3, both[:1]), "whatever else is in the batch"
    seen = {drawn(0, epoch, both[:1])[0] for epoch in range(40)}
    assert seen == {0, 1, 2, 3}, "in time every caption is"
    assert captions.chosen(both, None) == [0, 0]


def test_captions_of_the_same_words_have_one_number_and_others_others(tmp_path):
    texts = ["A dog runs.", "a dog runs", "a dog ran", "a dog"]
    write_captions(tmp_path / "data", {"train": [{"video": "a.mp4", "caption": texts}], "val": [
        {"video": f"{n}.mp4", "caption": text} for n, text in enumerate(texts)
    ]})  # fmt: skip
    config = parse_data(
        "caption_files", [], root=str(tmp_path / "data"), prepared=str(tmp_path / "p")
    )
    numbers = prepare(config).split("val").examples.tensors(np.arange(4))["text_id"].tolist()
    assert numbers[0] == numbers[1]
    assert len(set(numbers)) == 3


@pytest.mark.parametrize("workers", [2, 4])
def test_several_workers_together_have_the_batches_of_one(tmp_path, workers):
    rows = [{"video": f"{n}.mp4", "caption": [f"word{n} {k}" for k in range(3)]} for n in range(19)]
    write_captions(tmp_path / "data", {"train": rows})
    data = parse_data("caption_files", root=str(tmp_path / "data"), prepared=str(tmp_path / "p"))
    split = prepare(data).split("train")
    plan = plan_epoch(split, BatchConfig(examples=8), seed=3, epoch=2)

    def drawn(workers):
        """Return step by step what all workers have, and what each draws of a medium."""
        shares = [Share(worker, workers) for worker in range(workers)]
        lanes = [training_batches(split, Drawing(), plan, share) for share in shares]
        return [
            {
                key: torch.cat([part[key] for part in of_step]).tolist()
                for key in ("video", "text_id", "drawn", "weight")
            }
            for of_step in zip(*lanes, strict=True)
        ]

    assert drawn(workers) == drawn(1)
    assert len(drawn(1)) == plan.steps == 3


class Drawing:
    """Gives one random number for each medium."""

    def batches(self, groups, chance=None):
        for group in groups:
            numbers = [chance.of_medium(row).integers(1 << 40) for row in group]
            yield {"drawn": torch.tensor(numbers)}
