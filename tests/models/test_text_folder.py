"""Language models from folders as they are published: strict, in both formats, nothing fetched."""

import json
import logging

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM, RoFormerConfig, RoFormerForMaskedLM

from msvqa.errors import WeightsError
from tests.models.titled import TEXT, make_batch, make_model

SIZES = {
    "vocab_size": TEXT["vocabulary"], "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": TEXT["positions"],
}  # fmt: skip
PUBLISHED = {
    "bert": (BertConfig, BertForMaskedLM),
    "roformer": (RoFormerConfig, RoFormerForMaskedLM),
}


@pytest.fixture
def folder_of(tmp_path):
    """Return a function that writes a folder as the authors of a model publish it."""

    def make(kind, ending="bin", change=lambda state: state, **described):
        torch.manual_seed(1)
        config = PUBLISHED[kind][0](**SIZES)
        state = change(dict(PUBLISHED[kind][1](config).state_dict()))
        if ending == "bin":
            torch.save(state, tmp_path / "pytorch_model.bin")
        elif ending == "safetensors":
            save_file(
                {k: v.clone().contiguous() for k, v in state.items()},
                tmp_path / "model.safetensors",
            )
        described = config.to_dict() | described
        (tmp_path / "config.json").write_text(json.dumps(described), encoding="utf-8")
        (tmp_path / "vocab.txt").write_text("[PAD]\n", encoding="utf-8")
        return str(tmp_path)

    return make


def old_names(state):
    """Return the names of the first published files, with what these hold besides."""
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in state.items()
    }
    return renamed | {"bert.embeddings.position_ids": torch.arange(3)[None]}


@pytest.mark.parametrize("name", ["uniter", "mix_nextvlad"])
@pytest.mark.parametrize(
    ("kind", "ending", "change"),
    [
        ("bert", "bin", old_names),
        ("bert", "safetensors", lambda state: state),
        ("roformer", "bin", lambda state: state),
    ],
)
def test_published_weights_are_taken_over(folder_of, name, kind, ending, change):
    def with_pooler(state):
        pooler = {
            "bert.pooler.dense.weight": torch.eye(16),
            "bert.pooler.dense.bias": torch.zeros(16),
        }
        return change(state | pooler if kind == "bert" else state)

    folder = folder_of(kind, ending, with_pooler)
    model = make_model(name, kind, text={"source": folder})
    before = model.text.words.weight.clone()
    model.load_pretrained()
    torch.manual_seed(1)
    published = getattr(PUBLISHED[kind][1](PUBLISHED[kind][0](**SIZES)), kind).eval()
    assert not torch.equal(before, model.text.words.weight)
    batch = make_batch()
    expected = published(
        input_ids=batch["tokens"], attention_mask=batch["token_mask"].long()
    ).last_hidden_state
    found = model.eval().text.encode(model.text.embed(batch["tokens"]), batch["token_mask"])
    mask = batch["token_mask"]
    torch.testing.assert_close(found[mask], expected[mask], rtol=1e-5, atol=1e-6)
    (file,) = model.weight_files()["text"]
    assert file.startswith(folder)


def test_random_weights_are_said_aloud(folder_of, caplog):
    caplog.set_level(logging.WARNING)
    make_model("uniter").load_pretrained()
    make_model("uniter", text={"source": folder_of("bert", "none")}).load_pretrained()
    first, second = caplog.messages
    assert "no source is given" in first
    assert "holds no weights (model.safetensors or pytorch_model.bin)" in second


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"model_type": "roformer"}, "model_type 'roformer' instead of 'bert'"),
        (
            {"num_hidden_layers": 3, "hidden_act": "relu"},
            "num_hidden_layers 3 instead of 2; hidden_",
        ),
    ],
)
def test_a_folder_of_another_model_is_refused(folder_of, described, said):
    folder = folder_of("bert", **described)
    with pytest.raises(WeightsError, match=said):
        make_model("uniter", text={"source": folder}).load_pretrained()


def test_weights_that_do_not_fit_are_listed(folder_of):
    def change(state):
        state["bert.surprise"] = torch.zeros(1)
        del state["bert.encoder.layer.1.output.dense.bias"]
        return state

    model = make_model("uniter", text={"source": folder_of("bert", change=change)})
    with pytest.raises(WeightsError, match=r"1 missing: encoder.layer.1.*1 unknown: surprise"):
        model.load_pretrained()


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), ("{", "is no JSON"), ("[]", "does not describe")],
)
def test_a_folder_without_a_description_is_refused(tmp_path, content, said):
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(WeightsError, match=said):
        make_model("uniter", text={"source": str(tmp_path)}).load_pretrained()
