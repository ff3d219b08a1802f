"""A small VideoChat2 with a language model in a folder, and batches for it."""

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from msvqa.data.texts import as_tensor
from msvqa.models.layers.adapters import AdapterConfig
from msvqa.models.layers.qformer import QFormerConfig
from msvqa.models.layers.video_transformer import VideoTransformerConfig
from msvqa.models.model import Sizes
from msvqa.models.videochat2 import STAGES, HeadsConfig, SourcesConfig, VideoChat2

WORDS = ["<s>", "</s>", "<unk>", "###", "Human", "Assistant", ":", "<", ">", "/", "Video", "."]
WORDS += ["red", "blue", "cup", "what", "is", "it", "?", "a", "[INST]", "</", "[CLS]", "[SEP]"]
WORDS += [*"ABCDE", "(", ")", ":(", "Question", "Options", "Only", "give", "the", "best", "option"]
WIDTH, FRAMES, SIZE_PX = 24, 2, 16
SIZES = Sizes(frames=FRAMES, size_px=SIZE_PX)


def word_tokenizer():
    """Return a tokenizer of whole words; its padding is its end token."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


def reading_folder(folder):
    """Write a tokenizer of the Q-Former, which puts [CLS] before a text and [SEP] behind it."""
    read = word_tokenizer()
    marks = [(mark, WORDS.index(mark)) for mark in ("[CLS]", "[SEP]")]
    read.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=marks
    )
    read.save_pretrained(folder)
    return folder


def language_folder(folder):
    """Write a language model of random weights."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    reading_folder(folder / "qformer")
    return folder


def config_of(language=None, **changed):
    qformer = QFormerConfig(
        width=32, layers=2, heads=4, feed_forward=48, words=len(WORDS) + 1, max_words=16,
        queries=4, extra_queries=6, dropout=0.0,
    )  # fmt: skip
    video = VideoTransformerConfig(width=WIDTH, depth=3, heads=4, patch_px=8, drop_path=0.0)
    folders = {"language": str(language), "qformer": str(language / "qformer")} if language else {}
    values = {
        "video": video, "frames": FRAMES, "qformer": qformer, "heads": HeadsConfig(width=16),
        "sources": SourcesConfig(**folders),
        "adapter": AdapterConfig(rank=2, alpha=4, dropout=0.0),
    }  # fmt: skip
    return VideoChat2.Config(**(values | changed))


def built(stage, language=None, **changed):
    """Return the model of a stage, with frozen parts and weights as that stage has them."""
    torch.manual_seed(0)
    model = VideoChat2(config_of(language, **changed), SIZES, STAGES[stage]["absent"])
    model.load_pretrained()
    model.freeze(STAGES[stage]["frozen"])
    return model


def seen(count=4):
    """Return a batch of media and rows about them, one for each."""
    torch.manual_seed(2)
    return {
        "frames": torch.randint(0, 256, (count, FRAMES, SIZE_PX, SIZE_PX, 3), dtype=torch.uint8),
        "video_index": torch.arange(count), "video": torch.arange(count),
        "weight": torch.ones(count), "normalizer": torch.tensor(float(count)),
        "row": torch.arange(count),
    }  # fmt: skip


CAPTIONS = ["a red cup", "a blue cup", "what is it ? it is a cup", "red"]
TURNS = [
    [["what is it ?", "a red cup", "it is"]],
    [["what", "blue", ""]],
    [["is it red ?", "it is", "red"], ["what is it ?", "a cup", "red"]],
    [["", "a blue cup", ""]],
]


def captioned(count=4):
    """Return a batch of media with a caption each."""
    return seen(count) | {"text_utf8": as_tensor(CAPTIONS[:count]), "text_id": torch.arange(count)}


def asked(count=4):
    """Return a batch of media with conversations of different lengths."""
    texts = [json.dumps(["video", turns]) for turns in TURNS[:count]]
    return seen(count) | {"conversation_utf8": as_tensor(texts)}
