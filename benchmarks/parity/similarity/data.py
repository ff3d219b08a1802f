"""Frames, masked words, folds, and what a reader of records returns."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from benchmarks.parity.recording import EXACT, Comparison, Recording, compare_content
from msvqa.data.folds import example_folds
from msvqa.data.masking import Draws, corrupt
from msvqa.data.medium import Medium
from msvqa.data.processors.vectors import Vectors
from msvqa.data.record_index import index_of
from msvqa.data.records import parse_example, read_record
from msvqa.data.sampling import strided
from msvqa.data.tags import TagList

RECORDS = "tiny_pointwise.tfrecords"
REFERENCE_SEED = 42
WIDTH = 1536


def frame_sampling(recording: Recording) -> Iterator[Comparison]:
    """Frame numbers of every recorded length."""
    lengths, count = recording["n_input"].tolist(), int(recording["max_frames"])
    found = np.stack([strided(length, count) for length in lengths])
    yield recording.compare("indices", found, EXACT)
    yield recording.compare("num_frames", np.minimum(lengths, count), EXACT)


def mlm_masking(recording: Recording) -> Iterator[Comparison]:
    """Hidden titles and labels, with the recorded random numbers."""
    ids, special = recording["input_ids"], recording["special"].astype(bool)
    select, replace, random = (recording[f"u_{n}"] for n in ("select", "replace", "random"))
    chosen = (select > 1 - recording["prob"][:, None]) & ~special
    # The reference consumes words one by one; ours are drawn for every place.
    used = chosen & (replace >= 0.8) & (random < 0.5)
    words = np.zeros_like(ids)
    for row, listed in enumerate(recording["random_words_in_order"]):
        words[row, used[row]] = listed[: used[row].sum()]
    found = [
        corrupt(
            ids[row],
            special[row],
            Draws(select[row], replace[row], random[row], words[row]),
            probability=float(probability),
            mask_id=int(recording["mask_token_id"]),
        )
        for row, probability in enumerate(recording["prob"])
    ]
    yield recording.compare("out_ids", np.stack([hidden for hidden, _ in found]), EXACT)
    yield recording.compare("out_labels", np.stack([labels for _, labels in found]), EXACT)


def folds(recording: Recording) -> Iterator[Comparison]:
    """The small case whole, the published one by its digests."""
    for size in ("small", "full"):
        seed = int(recording[f"{size}_seed"])
        yield Comparison(recording.file, f"{size}_seed", float(seed != REFERENCE_SEED), EXACT)
    small = example_folds(int(recording["small_n"]), 11, int(recording["small_fold"]))
    n, size = int(recording["full_n"]), int(recording["full_fold"])
    full = example_folds(n, 11)
    yield recording.compare("small_val", np.stack([val for val, _ in small]), EXACT)
    yield recording.compare("small_train", np.stack([train for _, train in small]), EXACT)
    validated = np.concatenate([val for val, _ in small])
    first = len(validated)
    yield recording.compare("small_order", _order(int(recording["small_n"]), first, small), EXACT)
    order = np.concatenate([val for val, _ in full])
    yield recording.compare("full_order_first50", order[:50], EXACT)
    never = np.setdiff1d(np.arange(n), order)
    yield recording.compare("full_never_validated_first20_sorted", never[:20], EXACT)
    yield recording.compare("full_never_validated_count", np.array(len(never)), EXACT)
    yield recording.compare("full_train_len", np.array([len(train) for _, train in full]), EXACT)
    yield Comparison(
        recording.file, "full_fold", float(any(len(v) != size for v, _ in full)), EXACT
    )
    for name, which in (("val", 0), ("train", 1)):
        digests = [_digest(fold[which]) for fold in full]
        expected = recording[f"full_{name}_sha256"].tolist()
        yield compare_content(recording.file, f"full_{name}_sha256", digests, expected)
    whole = shuffled(n)
    expected = str(recording["full_order_sha256"])
    yield compare_content(recording.file, "full_order_sha256", _digest(whole), expected)


def tiny_pointwise(recording: Recording) -> Iterator[Comparison]:
    """Ids, titles, tags, categories and frames of the records beside the recording."""
    path = recording.path.with_name(RECORDS)
    index = index_of(path)
    for name, column in (("ids", "id"), ("titles", "title")):
        expected = recording[name].tolist()
        yield compare_content(recording.file, name, index[column].to_pylist(), expected)
    tags = [[int(tag) for tag in tags] for tags in index["tags"].to_pylist()]
    yield recording.compare("tag_ids", np.array(tags), EXACT)
    listed = TagList.ascending(map(str, recording["selected_tags"].tolist()))
    columns, counts = listed.columns(pa.array(index["tags"].to_pylist(), pa.list_(pa.string())))
    dense = np.zeros((len(index), len(listed)), np.int8)
    dense[np.repeat(np.arange(len(index)), counts), columns] = 1
    yield recording.compare("multi_hot", dense, EXACT)
    ranges = zip(index["start"].to_pylist(), index["end"].to_pylist(), strict=True)
    lengths, categories = [], []
    for row, (start, end) in enumerate(ranges):
        with path.open("rb") as file:
            features = parse_example(read_record(file, start, end))
        categories.append(features["category_id"][0])
        lengths.append(len(features["frame_feature"]))
        config = Vectors.Config(width=WIDTH, frames=lengths[-1], dtype="float16")
        medium = Medium(str(row), str(path), "record", start, end)
        (arrays,) = Vectors(config).arrays([medium])
        yield recording.compare(f"frames_{row}", arrays["vectors"], EXACT)
    yield recording.compare("n_frames", np.array(lengths), EXACT)
    yield recording.compare("category_ids", np.array(categories), EXACT)


def shuffled(count: int) -> np.ndarray:
    """Return all rows in the order that folds are cut from: that of a last fold of everything."""
    (fold,) = example_folds(count, 1)
    return fold[0]


def _order(count: int, first: int, small: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the order of a small case; what no fold validates comes last."""
    whole = shuffled(count)
    validated = np.concatenate([val for val, _ in small])
    return np.concatenate([validated, whole[first:]])


def _digest(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


CHECKS = {
    "frame_sampling": frame_sampling,
    "mlm_masking": mlm_masking,
    "folds": folds,
    "tiny_pointwise_expected": tiny_pointwise,
}
"""Recorded files about data, and what compares them."""
