"""What a batch is: `dict[str, Tensor]` with the keys below. Batches are grouped by video.

Legend: V videos (visits), Q questions, C clips, F frames per clip, L words, H x W pixels.

Per video (first axis V):
    clips            uint8 (V, C, F, H, W, 3), RGB; encoders bring it to their own layout and scale
    appearance       float16/32 (V, C, F, D_a), features of frames
    motion           float16/32 (V, C, D_m), features of clips
    frames           uint8 (V, T, H, W, 3), RGB; in evaluation with W views, or in training with W
                     repeats, (V, W, T, H, W, 3); T is 1 where all media of the step are images,
                     and beside other media an image is T equal frames
    video            int64 (V,), row of the video in its split
    is_image         bool (V,), of a split with images

Per question (first axis Q):
    question         int64 (Q, L), ids of words, or of pieces with what begins and ends a text,
                     padded on the right with 0
    question_length  int64 (Q,), at least 1
    video_index      int64 (Q,), row of this batch's video tensors that the question is about
    answer           int64 (Q,), class id
    label            int64 (Q,), class id of labelled media, -100 where a label has none
    weight           float32 (Q,), 1 for a question that counts and 0 for padding,
                     which repeats questions of the same batch
    row              int64 (Q,), row of the question in its split

Of examples about m media each (m > 1), what is said of media has the first two axes (Q, m), `video`
too, and there is no `video_index`. In place of a medium that an example does not have, -1, there
are zeros.

Tags of videos (first axis B), and pairs of videos (first axes B, 2):
    vectors          float16/32 (B, T, D), features of frames; rows from `num_frames` on are filling
    num_frames       int64 (B,), at least 1
    tokens           int64 (B, S), ids of the pieces of the title, with what begins and ends a text
    token_mask       bool (B, S), which of `tokens` are no padding
    tag_indices      int64 (B, most), columns of the tags in ascending order, padded with -1
    masked_tokens    int64 (B, S), `tokens` of which some are masked; in training with tags only
    token_labels     int64 (B, S), what they were, -100 where there is nothing to predict
    similarity       float32 (B,), of pairs

Texts as they are, for models with tokenizers of their own (first axis the examples):
    text_utf8, asked_utf8, conversation_utf8    uint8 (b, bytes), see `data/texts.py`

For the whole batch:
    normalizer       float32 (), what sums over questions are divided by to become means: the
                     number of counting questions of the global batch divided by the number of
                     workers, so that the average over workers of `sum / normalizer` is the mean
                     over the global batch
    workers          float32 (), number of workers: the average over workers of `sum * workers`
                     is the sum over the global batch
"""

from collections.abc import Mapping

import torch
from torch import Tensor

Batch = dict[str, Tensor]

VIDEO_KEYS = ("clips", "appearance", "motion", "video")
VECTOR_KEYS = ("vectors", "num_frames")
TITLE_KEYS = ("tokens", "token_mask", "tag_indices", "masked_tokens", "token_labels")
QUESTION_KEYS = ("question", "question_length", "video_index", "answer", "weight", "row")
NO_TAG, NO_LABEL = -1, -100


def to_device(batch: Mapping[str, Tensor], device: torch.device) -> Batch:
    """Copy a batch to a device without waiting; pixels stay uint8 and features keep their width."""
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}


def with_images(batch: Batch, is_image: Tensor, *, alone: bool) -> Batch:
    """Return a batch that says which media (V,) are images; `alone`, it has one frame of each."""
    found = {**batch, "is_image": is_image}
    if alone and "frames" in batch:
        found["frames"] = batch["frames"][..., :1, :, :, :].contiguous()
    return found


def is_of_images(batch: Mapping[str, Tensor]) -> bool:
    """Whether a batch has images alone, one frame of each."""
    images = batch.get("is_image")
    return images is not None and bool(images.all()) and batch["frames"].shape[-4] == 1


def weighted_mean(values: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the mean over the questions that count of one value (Q,) each, see `normalizer`."""
    return (values * batch["weight"].to(values.dtype)).sum() / batch["normalizer"].to(values.dtype)
