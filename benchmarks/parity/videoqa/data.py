"""Clips, pixels, questions and the count of right answers."""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.parity.recording import (
    EXACT,
    SHARED,
    STORED_AS_FLOAT,
    Comparison,
    Recording,
)
from msvqa import metrics
from msvqa.data.resize import resize
from msvqa.data.sampling import sample_clips
from msvqa.data.text import AnswerList, Vocabulary, read_word_vectors, tokenize
from msvqa.models.encoders.resnet import SCALES as RESNET_SCALES
from msvqa.models.layers.pixels import PixelScale

SAMPLED = re.compile(r"idx_clips(\d+)_frames(\d+)")
TOP = re.compile(r"top(\d+)/answers")


def frame_sampling(recording: Recording) -> Iterator[Comparison]:
    """Frame numbers of clips, for every recorded number of clips and frames."""
    lengths = recording["num_frames_in_video"].tolist()
    for name in recording.names("idx_"):
        if sizes := SAMPLED.fullmatch(name):
            clips, frames = map(int, sizes.groups())
            found = np.stack([sample_clips(length, clips, frames) for length in lengths])
            yield recording.compare(name, found, EXACT)


def pixels(recording: Recording) -> Iterator[Comparison]:
    """Resized clips, and the reference's scale for the 2D network."""
    frames = np.ascontiguousarray(recording["frames_bgr"][..., ::-1])
    recorded = recording["clips_appearance"]  # (C, F, 3, H, W)
    num_clips, frames_per_clip, size = (recorded.shape[axis] for axis in (0, 1, 3))
    chosen = sample_clips(len(frames), num_clips, frames_per_clip)
    clips = resize(frames, size)[chosen]  # (C, F, H, W, 3)
    # Pillow rounds between its two passes and torch does not: two steps of 255 at most, hardly any.
    yield recording.compare("clips_appearance", clips.transpose(0, 1, 4, 2, 3), 2.0)
    yield recording.compare("clips_motion", clips.transpose(0, 4, 1, 2, 3), 2.0)
    first = torch.from_numpy(recorded[0]).movedim(1, -1)
    scaled = PixelScale(*RESNET_SCALES["reference"])(first, like=torch.zeros(1))
    yield recording.compare("normalised_clip0", scaled, 2e-5)
    for name in recording.names("clips_rect"):
        recording.ignore(name, "the reference swaps height and width here; ours are squares")


def questions_subset(recording: Recording) -> Iterator[Comparison]:
    """Vocabulary, question ids, classes and word vectors of chosen questions."""
    splits = recording.cases("source_ids")
    rows = {split: _rows(split, recording[f"{split}/source_ids"]) for split in splits}
    words, answers = _words_of(rows["train"])
    yield from _compare_both(recording, words, answers)
    for split in splits:
        yield from _compare_rows(recording, split, rows[split], words, answers)
    for name in filter(TOP.fullmatch, recording.names("top")):
        few = name.partition("/")[0]
        kept = AnswerList.build((row["answer"] for row in rows["train"]), int(few[3:]))
        yield _compare_words(recording, f"{few}/answer_tokens", kept.answers)
        yield from _compare_rows(recording, few, rows["train"], words, kept)
    yield from _word_vectors(recording, words)


def questions_full(recording: Recording) -> Iterator[Comparison]:
    """Vocabularies, hashes and counts of all questions."""
    splits = recording.cases("questions_sha256")
    rows = {split: _rows(split) for split in splits}
    words, answers = _words_of(rows["train"])
    yield from _compare_both(recording, words, answers)
    for split in splits:
        encoded = _encoded(rows[split], words, answers, split == "train")
        for name, found in encoded.items():
            if f"{split}/{name}_sha256" in recording:
                digest = hashlib.sha256(found.astype("<i4").tobytes()).hexdigest()
                differs = digest != str(recording[f"{split}/{name}_sha256"])
                yield Comparison(recording.file, f"{split}/{name} (hash)", float(differs), EXACT)
        first = len(recording[f"{split}/first_rows"])
        counted = {
            "shape": encoded["questions"].shape,
            "first_rows": encoded["questions"][:first],
            "first_answers": encoded["answers"][:first],
            "num_answer_unk": (encoded["answers"] == (0 if split == "train" else 1)).sum(),
            "num_token_unk": (encoded["questions"] == 1).sum(),
        }
        for name, value in counted.items():
            yield recording.compare(f"{split}/{name}", np.array(value), EXACT)


def _compare_rows(
    recording: Recording,
    case: str,
    rows: list[dict[str, Any]],
    words: Vocabulary,
    answers: AnswerList,
) -> Iterator[Comparison]:
    """Compare what is recorded of some questions: of a split, or of train with fewer answers."""
    train = case == "train" or TOP.fullmatch(f"{case}/answers") is not None
    encoded = _encoded(rows, words, answers, train)
    # The reference numbers the rows of a split; ours keep the ids of the annotations.
    encoded["question_id"] = np.arange(len(rows))
    for name, found in encoded.items():
        if f"{case}/{name}" in recording:
            yield recording.compare(f"{case}/{name}", found, EXACT)


def _word_vectors(recording: Recording, words: Vocabulary) -> Iterator[Comparison]:
    """Read the recorded vectors from a text file, as a user has them."""
    names, vectors = recording["glove_in/words"], recording["glove_in/vectors"]
    lines = [
        " ".join([word, *map(repr, vector)])
        for word, vector in zip(names.tolist(), vectors.tolist(), strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vectors.txt")
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        found = read_word_vectors(file, words.tokens, vectors.shape[1])
    yield recording.compare("train/glove", found, STORED_AS_FLOAT)


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
    expected = recording[quantity].tolist()
    wrong = sum(a != b for a, b in zip(found, expected, strict=False))
    wrong += abs(len(found) - len(expected))
    return Comparison(recording.file, quantity, wrong, EXACT)


def evaluation(recording: Recording) -> Iterator[Comparison]:
    """Accuracy overall and per type, by the reference's rule."""
    predicted, answers = recording["logits"].argmax(1), recording["answers"]
    right = metrics.is_right(predicted, answers, unknown_counts=True)
    by_type = metrics.mean_of_each(right, recording["first_word"].tolist())
    kinds = recording["expected_names"].tolist()[1:]
    found = np.array([metrics.mean(right), *(by_type[kind][0] for kind in kinds)])
    yield recording.compare("expected", found, 1e-12)
