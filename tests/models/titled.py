"""Small models of titled videos, and batches of random videos with titles and tags."""

import torch

from msvqa.models.mix_nextvlad import MixNeXtVLAD
from msvqa.models.model import Sizes
from msvqa.models.uniter import Uniter

WIDTH, FRAMES, TAGS, WORDS, LONGEST = 12, 5, 9, 30, 6
SIZES = Sizes(width=WIDTH, frames=FRAMES, tags=TAGS)
TEXT = {
    "vocabulary": WORDS, "positions": LONGEST + FRAMES, "width": 16, "layers": 2, "heads": 2,
    "inner_width": 24, "dropout": 0.0,
}  # fmt: skip
SMALL = {
    "mix_nextvlad": {
        "experts": 2, "hidden_size": 10, "embedding_size": 16, "clusters": 3, "groups": 4,
        "dropout": 0.0,
    },
    "uniter": {"embedding_size": 10},
}  # fmt: skip
KINDS = {"mix_nextvlad": MixNeXtVLAD, "uniter": Uniter}


def make_model(name, kind="bert", absent=(), text=(), **changes):
    torch.manual_seed(0)
    fields = SMALL[name] | {"text": TEXT | {"kind": kind} | dict(text)} | changes
    return KINDS[name](KINDS[name].Config(**fields), SIZES, absent)


def make_batch(videos=6, seed=0):
    """Return a batch of videos, one example each."""
    g = torch.Generator().manual_seed(seed)

    def draw(low, high, *shape):
        return torch.randint(low, high, shape, generator=g)

    length = draw(3, LONGEST + 1, videos)
    mask = torch.arange(LONGEST) < length[:, None]
    tokens = draw(4, WORDS, videos, LONGEST) * mask
    tags = draw(0, TAGS, videos, 3)
    tags[:, 2] = -1
    return {
        "vectors": torch.randn((videos, FRAMES, WIDTH), generator=g),
        "num_frames": draw(1, FRAMES, videos),
        "tokens": tokens,
        "token_mask": mask,
        "tag_indices": tags,
        **whole(videos),
    }


def make_pairs(pairs=4, seed=0):
    """Return a batch of pairs: all that is said of media has both sides of each."""
    media = make_batch(2 * pairs, seed)
    said = ("vectors", "num_frames", "tokens", "token_mask", "tag_indices", "video")
    batch = whole(pairs) | {key: media[key].unflatten(0, (pairs, 2)) for key in said}
    del batch["video_index"]
    return batch | {"similarity": torch.linspace(0, 1, pairs)}


def whole(examples):
    """Return what every training batch has of its examples."""
    return {
        "video": torch.arange(examples),
        "video_index": torch.arange(examples),
        "row": torch.arange(examples),
        "weight": torch.ones(examples),
        "normalizer": torch.tensor(float(examples)),
        "workers": torch.tensor(1.0),
    }


def with_masked_words(batch):
    """Return the batch with its second word masked."""
    masked, labels = batch["tokens"].clone(), torch.full_like(batch["tokens"], -100)
    labels[:, 1], masked[:, 1] = batch["tokens"][:, 1], 3
    return batch | {"masked_tokens": masked, "token_labels": labels}
