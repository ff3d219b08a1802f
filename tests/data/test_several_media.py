"""Examples about several media, or none: plans, batches, splits and folds carry them whole."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
import torch

from msvqa.data.annotated import MEDIA_COLUMNS, Annotated
from msvqa.data.examples.examples import Examples
from msvqa.data.folds import example_folds, read_split
from msvqa.data.loader import evaluation_batches, training_batches
from msvqa.data.media import COLUMNS, Media
from msvqa.data.order import Share, plan_epoch
from msvqa.data.split import Split
from msvqa.engine.asking import shares
from msvqa.prepare import prepare
from msvqa.recipe import BatchConfig, FoldsConfig
from tests.similar_videos import write_similar

PAIRS = [[0, 1], [2, -1], [1, 3], [-1, -1], [3, 0]]


class Numbers(Examples):
    """Examples of which only the rows matter."""

    name, columns = "numbers", pa.schema([("number", pa.int64())])
    fit = cautions = shown = None
    __abstractmethods__ = frozenset()

    def tensors(self, rows, chance=None):
        return {"number": torch.from_numpy(self.table["number"].to_numpy()[rows])}


class Two(Numbers):
    media_per_example = 2


@dataclass
class Source:
    """A medium is ten times its row, plus one; no medium is ever asked for by -1."""

    asked: list = field(default_factory=list)

    def batches(self, groups, chance=None):
        for group in groups:
            self.asked.append(list(group))
            assert all(row >= 0 for row in group)
            yield {"value": torch.tensor([[10.0 * row + 1] for row in group])} if group else {}


def split_of(media, kind=Two):
    media = np.array(media, dtype=np.int64)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(media.reshape(-1)), kind.media_per_example)
    table = pa.table({"media": flat, "number": pa.array(range(len(media)), pa.int64())})
    rows = [{"id": f"v{n}", "path": "", "kind": "record"} for n in range(4)]
    return Split("train", Media(pa.Table.from_pylist(rows, schema=COLUMNS), ""), kind(table), 5)


def values(media):
    """Return what a batch should hold of media (b, m): 0 in place of none."""
    return torch.tensor(np.where(np.array(media) < 0, 0.0, 10.0 * np.array(media) + 1))


@pytest.mark.parametrize("workers", [1, 2])
def test_training_batches_hold_all_media_of_each_example(workers):
    split = split_of(PAIRS)
    plan = plan_epoch(split, BatchConfig(examples=2), seed=0, epoch=0)
    seen = []
    for worker in range(workers):
        for batch in training_batches(split, Source(), plan, Share(worker, workers)):
            rows = batch["row"].tolist()
            assert batch["video"].tolist() == [PAIRS[row] for row in rows]
            assert "video_index" not in batch
            if "value" in batch:
                assert torch.equal(batch["value"][..., 0], values([PAIRS[row] for row in rows]))
            else:
                assert rows == [3] * len(rows), "only examples about nothing have no tensors"
            seen += [row for row, counts in zip(rows, batch["weight"], strict=True) if counts]
    assert sorted(seen) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("workers", [1, 3])
def test_every_example_is_asked_once_with_its_media(workers):
    split, seen = split_of(PAIRS), []
    for own in shares(split, "both", workers):
        for batch in evaluation_batches(split, Source(), own, 2):
            rows = batch["row"].tolist()
            if "value" in batch:
                assert torch.equal(batch["value"][..., 0], values([PAIRS[row] for row in rows]))
            seen += rows
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_examples_without_their_only_medium_are_asked_too():
    split, seen = split_of([[2], [-1], [0]], Numbers), []
    (own,) = shares(split, "both", 1)
    for batch in evaluation_batches(split, Source(), own, 2):
        seen += batch["row"].tolist()
        expected = values(np.array([[2], [-1], [0]])[batch["row"].numpy()])
        assert torch.equal(batch["value"], expected)
        assert batch["video_index"].tolist() == list(range(len(batch["row"])))
    assert sorted(seen) == [0, 1, 2]


def test_examples_of_one_medium_stay_together():
    split, source = split_of([[1], [0], [1]], Numbers), Source()
    (own,) = shares(split, "both", 1)
    (batch,) = evaluation_batches(split, source, own, 4)
    assert source.asked == [[1, 0]]
    assert batch["row"].tolist() == [0, 2, 1]


def test_a_split_loses_examples_of_lost_media_and_no_others():
    split = split_of(PAIRS).without({"v1"})
    assert split.examples.table["number"].to_pylist() == [1, 3, 4]
    assert split.examples.media.tolist() == [[1, -1], [-1, -1], [2, 0]]
    assert Split.joined("train", [split, split]).examples.media[3:].tolist() == [
        [4, -1], [-1, -1], [5, 3],
    ]  # fmt: skip


def test_what_has_no_medium_is_not_absent():
    media = [
        {"id": f"v{n}", "path": "", "kind": "record", "split": "train", "present": n != 1}
        for n in range(4)
    ]
    annotated = Annotated(
        kind=Two,
        splits=("train",),
        media=pa.Table.from_pylist(media, schema=MEDIA_COLUMNS),
        examples=split_of(PAIRS).examples.table.append_column("split", pa.array(["train"] * 5)),
    )
    assert annotated.presence().tolist() == [False, True, False, True, True]


@pytest.mark.parametrize(("count", "folds"), [(47, 11), (60, 11), (22, 11), (12, 5)])
def test_folds_of_examples_validate_each_once(count, folds):
    found = example_folds(count, folds)
    assert sorted(np.concatenate([val for val, _ in found])) == list(range(count))
    sizes = [len(val) for val, _ in found]
    assert sizes == [count // folds] * (folds - 1) + [count // folds + count % folds]
    for val, train in found:
        assert sorted([*val, *train]) == list(range(count))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("folds") / "set"
    return prepare(write_similar(root, part="pairwise", pairwise_videos=240, pairs=110))


def test_a_recipe_deals_pairs(pairs):
    whole = pairs.split("train")
    everything = [
        tuple(p) for p in zip(*whole.examples.shown(np.arange(110)).values(), strict=True)
    ]
    validated = []
    for index in range(11):
        folds = FoldsConfig(count=11, index=index, by="example")
        val, train = (read_split(pairs, name, folds) for name in ("val", "train"))
        assert (len(val), val.expected, len(train), train.expected) == (10, 10, 100, 100)
        assert set(np.unique(val.examples.media)) == set(range(len(val.media)))
        validated += zip(*val.examples.shown(np.arange(10)).values(), strict=True)
    assert sorted(validated) == sorted(everything)


def test_folds_of_videos_share_none_and_lose_no_pair_of_small_groups(pairs):
    counted = 0
    for index in range(3):
        folds = FoldsConfig(count=3, index=index)
        val, train = (read_split(pairs, name, folds) for name in ("val", "train"))
        used = [
            {split.media.id[row] for row in split.examples.media.reshape(-1)}
            for split in (val, train)
        ]
        assert used[0] and used[1] and not used[0] & used[1]
        assert len(val) + len(train) == 110
        counted += len(val)
    assert counted == 110
