"""Clips, pixels, questions and the count of right answers."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.parity.recording import EXACT, SHARED, Comparison, Recording
from msvqa import metrics
from msvqa.data.resize import resize
from msvqa.data.sampling import sample_clips
from msvqa.data.text import AnswerList, Vocabulary, tokenize
from msvqa.models.encoders.resnet import SCALES as RESNET_SCALES
from msvqa.models.layers.pixels import PixelScale

SPLITS = ("train", "val", "test")


def frame_sampling(recording: Recording) -> Iterator[Comparison]:
    """Frame numbers of clips."""
    lengths = recording.arrays["num_frames_in_video"].tolist()
    for clips in (8, 16, 24):
        found = np.stack([sample_clips(length, clips, 16) for length in lengths])
        yield recording.compare(f"idx_clips{clips}_frames16", found, EXACT)


def pixels(recording: Recording) -> Iterator[Comparison]:
    """Resized clips, and the reference's scale for the 2D network."""
    frames = np.ascontiguousarray(recording.arrays["frames_bgr"][..., ::-1])
    clips = resize(frames, 24)[sample_clips(len(frames), 3, 16)]  # (C, F, H, W, 3)
    # Pillow rounds between its two passes and torch does not: two steps of 255 at most, hardly any.
    yield recording.compare("clips_appearance", clips.transpose(0, 1, 4, 2, 3), 2.0)
    yield recording.compare("clips_motion", clips.transpose(0, 4, 1, 2, 3), 2.0)
    recorded = torch.from_numpy(recording.arrays["clips_appearance"][0]).movedim(1, -1)
    scaled = PixelScale(*RESNET_SCALES["reference"])(recorded, like=torch.zeros(1))
    yield recording.compare("normalised_clip0", scaled, 2e-5)


def questions_subset(recording: Recording) -> Iterator[Comparison]:
    """Vocabulary, question ids and classes of chosen questions."""
    arrays = recording.arrays
    rows = {split: _rows(split, arrays[f"{split}/source_ids"]) for split in SPLITS}
    words, answers = _words_of(rows["train"])
    yield from _compare_both(recording, words, answers)
    for split in SPLITS:
        for name, found in _encoded(rows[split], words, answers, split == "train").items():
            yield recording.compare(f"{split}/{name}", found, EXACT)
    few = AnswerList.build((row["answer"] for row in rows["train"]), 20)
    found = np.array([few.encode(row["answer"], train=True) for row in rows["train"]])
    yield _compare_words(recording, "top20/answer_tokens", few.answers)
    yield recording.compare("top20/answers", found, EXACT)


def questions_full(recording: Recording) -> Iterator[Comparison]:
    """Vocabularies and hashes of all questions."""
    rows = {split: _rows(split) for split in SPLITS}
    words, answers = _words_of(rows["train"])
    yield from _compare_both(recording, words, answers)
    for split in SPLITS:
        for name, found in _encoded(rows[split], words, answers, split == "train").items():
            digest = hashlib.sha256(found.astype("<i4").tobytes()).hexdigest()
            differs = digest != str(recording.arrays[f"{split}/{name}_sha256"])
            yield Comparison(recording.file, f"{split}/{name} (hash)", float(differs), EXACT)


def _words_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Vocabulary, AnswerList]:
    words = Vocabulary.build(tokenize(row["question"]) for row in rows)
    return words, AnswerList.build((row["answer"] for row in rows), 4000)


def _compare_both(
    recording: Recording, words: Vocabulary, answers: AnswerList
) -> Iterator[Comparison]:
    yield _compare_words(recording, "vocab/question_tokens", words.tokens)
    yield _compare_words(recording, "vocab/answer_tokens", answers.answers)


def _rows(split: str, ids: np.ndarray | None = None) -> list[dict[str, Any]]:
    file = SHARED / "data" / "msvd-qa" / f"{split}_qa.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    if ids is None:
        return rows
    by_id = {row["id"]: row for row in rows}
    return [by_id[number] for number in ids.tolist()]


def _encoded(
    rows: list[dict[str, Any]], words: Vocabulary, answers: AnswerList, train: bool
) -> dict[str, np.ndarray]:
    encoded = [words.encode(tokenize(row["question"])) for row in rows]
    length = np.array([len(ids) for ids in encoded])
    padded = np.zeros((len(rows), length.max()), dtype=np.int32)
    padded[np.arange(padded.shape[1]) < length[:, None]] = np.concatenate(encoded)
    return {
        "questions": padded,
        "questions_len": length,
        "answers": np.array([answers.encode(row["answer"], train) for row in rows]),
        "video_ids": np.array([row["video_id"] for row in rows]),
    }


def _compare_words(recording: Recording, quantity: str, found: list[str]) -> Comparison:
    expected = recording.arrays[quantity].tolist()
    wrong = sum(a != b for a, b in zip(found, expected, strict=False))
    wrong += abs(len(found) - len(expected))
    return Comparison(recording.file, quantity, wrong, EXACT)


def evaluation(recording: Recording) -> Iterator[Comparison]:
    """Accuracy overall and per type, by the reference's rule."""
    arrays = recording.arrays
    right = metrics.is_right(arrays["logits"].argmax(1), arrays["answers"], unknown_counts=True)
    by_type = metrics.mean_of_each(right, arrays["first_word"].tolist())
    kinds = arrays["expected_names"].tolist()[1:]
    found = np.array([metrics.mean(right), *(by_type[kind][0] for kind in kinds)])
    yield recording.compare("expected", found, 1e-12)
