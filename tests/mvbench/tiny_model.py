"""Folders of video-language models with next to no weights, as `transformers` writes them."""

import torch
import transformers as library
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

TURNS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'video' %}"
    "VIDEO{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIDE = 56
SQUARE = {"height": SIDE, "width": SIDE}


def write_tiny_model(folder, layout):
    """Write a random model of some ten thousand parameters: qwen2_vl, llava_onevision, internvl."""
    torch.manual_seed(0)
    model, processor = LAYOUTS[layout]()
    # Larger weights than usual: what such a model says depends on what it sees.
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tokenizer_of(special, **roles):
    """Return a tokenizer of bytes with special words, some of which have a role."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    words = {letter: number for number, letter in enumerate(sorted(letters))}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return library.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[*TURNS, *special],
        **({"extra_special_tokens": roles} if roles else {}),
    )


def text_config(tokenizer, **more):
    bos, _, eos = tokenizer.convert_tokens_to_ids(list(TURNS))
    return {
        "model_type": "qwen2", "vocab_size": len(tokenizer), "hidden_size": 32,
        "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": bos,
        **more,
    }  # fmt: skip


def qwen2_vl():
    marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = tokenizer_of(marks)
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(marks))
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1]}
    config = library.Qwen2VLConfig(
        text_config=text_config(tokenizer, model_type="qwen2_vl_text", rope_parameters=rope),
        vision_config={
            "depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 1,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        image_token_id=image, video_token_id=video,
        vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}
    processor = library.Qwen2VLProcessor(
        library.Qwen2VLImageProcessor(size=size),
        tokenizer,
        library.Qwen2VLVideoProcessor(size=size),
        TEMPLATE.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"),
    )
    return library.Qwen2VLForConditionalGeneration(config), processor


def llava_onevision():
    tokenizer = tokenizer_of(("<image>", "<video>"))
    image, video = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
    config = library.LlavaOnevisionConfig(
        text_config=text_config(tokenizer),
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 16,
            "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE,
            "patch_size": 14, "vision_use_head": False,
        },
        image_token_index=image, video_token_index=video, image_grid_pinpoints=[[SIDE, SIDE]],
    )  # fmt: skip
    processor = library.LlavaOnevisionProcessor(
        library.LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=[[SIDE, SIDE]]),
        tokenizer,
        library.LlavaOnevisionVideoProcessor(size=SQUARE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE.replace("VIDEO", "<video>"),
    )
    return library.LlavaOnevisionForConditionalGeneration(config), processor


def internvl():
    roles = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = tokenizer_of((), **roles)
    config = library.InternVLConfig(
        text_config=text_config(tokenizer),
        vision_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": [SIDE, SIDE], "patch_size": [14, 14],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )  # fmt: skip
    processor = library.InternVLProcessor(
        library.GotOcr2ImageProcessor(size=SQUARE),
        tokenizer,
        library.InternVLVideoProcessor(size=SQUARE),
        image_seq_length=4,
        chat_template=TEMPLATE.replace("VIDEO", "<video>\n"),
    )
    return library.InternVLForConditionalGeneration(config), processor


LAYOUTS = {"qwen2_vl": qwen2_vl, "llava_onevision": llava_onevision, "internvl": internvl}
