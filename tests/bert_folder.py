"""A small BERT as its authors publish it: a vocabulary, a description, weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM

PIECES = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    *("a", "red", "blue", "ball", "dog", "roll", "##s", "##ing", "what", "is", "the", "doing"),
    *("un", "##heard", "run", "man", "t", "shirt", "-"),
]  # fmt: skip
SIZES = {
    "vocab_size": len(PIECES), "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 96, "max_position_embeddings": 9,
}  # fmt: skip


def write_vocabulary(folder: Path, pieces: list[str] = PIECES) -> str:
    """Write the files that a tokenizer needs; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    return str(folder)


def make_bert() -> BertForMaskedLM:
    """Return the model, with numbers that all differ."""
    torch.manual_seed(5)
    model = BertForMaskedLM(BertConfig(**SIZES)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def write_bert(folder: Path, change=lambda state: state, **described) -> str:
    """Write a whole folder; return it."""
    write_vocabulary(folder)
    model = make_bert()
    state = change({name: value.clone() for name, value in model.state_dict().items()})
    save_file({n: v.contiguous().clone() for n, v in state.items()}, folder / "model.safetensors")
    described = model.config.to_dict() | described
    (folder / "config.json").write_text(json.dumps(described), encoding="utf-8")
    return str(folder)
