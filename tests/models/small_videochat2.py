"""A small VideoChat2 with a language model in a folder, and batches for it."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from msvqa.models.layers.adapters import AdapterConfig
from msvqa.models.layers.qformer import QFormerConfig
from msvqa.models.model import Sizes
from msvqa.models.videochat2 import STAGES, HeadsConfig, VideoChat2

WORDS = ["<s>", "</s>", "<unk>", "###", "Human", "Assistant", ":", "<", ">", "/", "Video", "."]
WORDS += ["red", "blue", "cup", "what", "is", "it", "?", "a"]
WIDTH = 24


def word_tokenizer():
    """Return a tokenizer of whole words; its padding is its end token."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


def language_folder(folder):
    """Write a language model of random weights."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def config_of(language=None, **changed):
    qformer = QFormerConfig(
        width=32, layers=2, heads=4, feed_forward=48, words=40, max_words=16, queries=4,
        extra_queries=6, dropout=0.0,
    )  # fmt: skip
    values = {
        "vision_width": WIDTH, "frames": 2, "qformer": qformer, "heads": HeadsConfig(width=16),
        "language": str(language) if language else None, "begin_id": 0,
        "adapter": AdapterConfig(rank=2, alpha=4, dropout=0.0),
    }  # fmt: skip
    return VideoChat2.Config(**(values | changed))


def built(stage, language=None, **changed):
    """Return the model of a stage, with frozen parts and weights as that stage has them."""
    torch.manual_seed(0)
    model = VideoChat2(config_of(language, **changed), Sizes(), STAGES[stage]["absent"])
    model.load_pretrained()
    model.freeze(STAGES[stage]["frozen"])
    return model


def seen(count=4):
    """Return a batch of media and rows about them, one for each."""
    torch.manual_seed(2)
    return {
        "vision": torch.randn(count, 2, 3, WIDTH),
        "video_index": torch.arange(count), "video": torch.arange(count),
        "weight": torch.ones(count), "normalizer": torch.tensor(float(count)),
        "row": torch.arange(count),
    }  # fmt: skip


def captioned(count=4):
    """Return a batch of media with a text each."""
    lengths = torch.tensor([5, 3, 4, 5])[:count]
    text = torch.randint(5, 39, (count, 5))
    text[:, 0] = 2
    return seen(count) | {"text": text, "text_length": lengths, "text_id": torch.arange(count)}


def asked(count=4):
    """Return a batch of media with conversations of different lengths."""
    torch.manual_seed(3)
    lengths = torch.tensor([6, 4, 5, 6])[:count]
    mask = torch.arange(6) < lengths[:, None]
    targets = mask & (torch.arange(6) >= 3)
    before = torch.randint(2, len(WORDS), (count, 3))
    return seen(count) | {
        "before": before, "before_mask": torch.ones_like(before).bool(),
        "after": torch.randint(2, len(WORDS), (count, 6)), "after_mask": mask,
        "after_targets": targets,
        "reading": torch.randint(5, 39, (count, 4)),
        "reading_mask": torch.arange(4) < torch.tensor([4, 2, 0, 3])[:count, None],
    }  # fmt: skip
