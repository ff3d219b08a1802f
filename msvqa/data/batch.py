"""What a batch is: `dict[str, Tensor]` with the keys below. Batches are grouped by video.

Legend: V videos (visits), Q questions, C clips, F frames per clip, L words, H x W pixels.

Per video (first axis V):
    clips            uint8 (V, C, F, H, W, 3), RGB; encoders bring it to their own layout and scale
    appearance       float16/32 (V, C, F, D_a), features of frames
    motion           float16/32 (V, C, D_m), features of clips
    video            int64 (V,), row of the video in its split

Per question (first axis Q):
    question         int64 (Q, L), word ids, padded on the right with 0
    question_length  int64 (Q,), at least 1
    video_index      int64 (Q,), row of this batch's video tensors that the question is about
    answer           int64 (Q,), class id
    weight           float32 (Q,), 1 for a question that counts and 0 for padding,
                     which repeats questions of the same batch
    row              int64 (Q,), row of the question in its split

Of titled videos (V media, B examples; S words of a title, T frames, D numbers of a frame):
    vectors          float16/32 (V, T, D), rows of each medium, such as features of frames
    num_frames       int64 (V,), how many of the rows are no padding
    tokens           int64 (B, S), word pieces of the title, with [CLS], [SEP] and [PAD]
    token_mask       bool (B, S), which of them are no padding
    tag_indices      int64 (B, most), numbers of the tags, -1 where there are no more
    masked_tokens    int64 (B, S), the title with some words masked or replaced
    token_labels     int64 (B, S), what stood there, -100 where nothing is to be guessed
    similarity       float32 (B,), how alike the two media of a pair are
    Of examples that are pairs all that is said of media is (B, 2, ...), `video` too, and there is
    no `video_index`. Batches of media alone have titles of media, (V, S).

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


def weighted_mean(values: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the mean over the questions that count of one value (Q,) each, see `normalizer`."""
    return (values * batch["weight"].to(values.dtype)).sum() / batch["normalizer"].to(values.dtype)
