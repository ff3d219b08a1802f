"""Published BERT and files of UMT's second stage: part by part, strictly, what is new named."""

import logging
import re

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM

from msvqa.errors import WeightsError
from msvqa.models.language.bert_halves import AROUND, INSIDE, halves
from msvqa.models.model import Sizes
from msvqa.models.umt import UMT
from tests.bert_folder import PIECES, SIZES, make_bert, write_bert
from tests.models.small_umt import SMALL, make_batch, make_umt

SIZES_OF_DATA = {"text": len(PIECES), "text_start": 2, "text_end": 3, "text_mask": 4}
TEXT_NAMES = {f"{part}.{own}": theirs for theirs, (part, own) in AROUND.items()}


def from_bert(source, **changes):
    text = SMALL["text"] | {"source": source}
    return make_umt(words=SIZES_OF_DATA, text=text, **changes)


@pytest.fixture
def texts():
    ids = torch.tensor([[2, 5, 6, 8, 3, 0], [2, 9, 3, 0, 0, 0]])
    return ids, torch.tensor([5, 3])


def test_both_halves_of_a_published_bert_compute_what_it_does(tmp_path, texts, caplog):
    caplog.set_level(logging.WARNING)
    model = from_bert(write_bert(tmp_path)).eval()
    model.load_pretrained()
    ids, there = model.text.ids(*texts)
    theirs = make_bert()
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=there.long(), output_hidden_states=True)
        states = model.text(ids, there)
        torch.testing.assert_close(states[there], expected.hidden_states[2][there])
        for layer in model.fusion.layers:
            layer.cross = None  # BERT sees no clips
        fused = model.fusion(states, there, torch.zeros(2, 1, 32))
        torch.testing.assert_close(fused[there], expected.hidden_states[3][there])
        logits = model.word_logits(fused)
        torch.testing.assert_close(logits[there], expected.logits[there], rtol=1e-4, atol=1e-4)
    assert "begin with chance: the attention of fusion to clips" in caplog.text
    assert {*model.weight_files()} == {"text", "fusion", "decoder"}


def test_files_of_old_names_and_with_all_heads_are_the_same(tmp_path, texts):
    def old(state):
        heads = {
            "cls.seq_relationship.weight": torch.zeros(2, 24),
            "cls.seq_relationship.bias": torch.zeros(2), "bert.pooler.dense.bias": torch.zeros(24),
            "bert.pooler.dense.weight": torch.zeros(24, 24),
        }  # fmt: skip
        renamed = {
            n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): v
            for n, v in state.items()
        }
        return renamed | heads

    one, other = from_bert(write_bert(tmp_path / "a")), from_bert(write_bert(tmp_path / "b", old))
    for model in (one, other):
        model.load_pretrained()
    assert all(torch.equal(v, other.text.state_dict()[n]) for n, v in one.text.state_dict().items())


@pytest.mark.parametrize(
    ("change", "described", "said"),
    [
        (None, {"num_hidden_layers": 4}, "num_hidden_layers 4 instead of 3"),
        (lambda s: s | {"bert.more": torch.zeros(1)}, {}, "no part of the model has: more"),
        (
            lambda s: {n: v for n, v in s.items() if "layer.2.attention.self.query.bias" not in n},
            {},
            r"\(fusion\) does not fit the model; 1 missing: layers\.0\.own\.query\.bias",
        ),
        (
            lambda s: s | {"cls.predictions.decoder.weight": torch.zeros(len(PIECES), 24)},
            {},
            "the words of its head",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_part_and_name(tmp_path, change, described, said):
    folder = write_bert(tmp_path, change or (lambda state: state), **described)
    with pytest.raises(WeightsError, match=said):
        from_bert(folder).load_pretrained()


def test_bert_needs_pieces_and_weights(tmp_path):
    folder = write_bert(tmp_path)
    words = make_umt(words={"vocabulary": 9}, text=SMALL["text"] | {"source": folder})
    with pytest.raises(WeightsError, match=rf"data\.tokenizer={re.escape(folder)}"):
        words.load_pretrained()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has no weights \(model\.safetensors or"):
        from_bert(folder).load_pretrained()


@pytest.mark.long
@pytest.mark.parametrize(("size", "width", "layers"), [("base", 768, 12), ("large", 1024, 24)])
def test_the_published_sizes_of_bert_fit(size, width, layers):
    words = {"text": 30_522}
    config = BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )  # fmt: skip
    with torch.device("meta"):
        bert = BertForMaskedLM(config).state_dict()
        video = {"preset": size, "heads": 2, "width": width}
        model = UMT(
            UMT.Config.model_validate({"video": video, "text": {"preset": size}}),
            Sizes(**words, frames=4, size_px=224),
        )
    bert = {n: v for n, v in bert.items() if n != "cls.predictions.decoder.weight"}
    parts = halves(bert, model.config.text.depth, "bert")
    assert {*parts} == {"text", "fusion", "word_head"}
    for name, given in parts.items():
        own = getattr(model, name).state_dict()
        mine = {n: v.shape for n, v in own.items() if ".cross." not in n}
        assert {n: v.shape for n, v in given.items()} == mine, name


def theirs(model):
    """Return the weights of a model under the names of published files of the second stage."""
    inside = {ours: name for name, ours in INSIDE.items()}
    names = {
        "projections.norm": "vision_encoder.pool_norm", "projections.video": "vision_proj",
        "projections.text": "text_proj", "matching": "itm_head",
    }  # fmt: skip
    for ours, name in TEXT_NAMES.items():
        names[ours] = f"text_encoder.{name if name.startswith('cls.') else f'bert.{name}'}"
    found = {}
    for name, value in model.state_dict().items():
        around, _, kind = name.rpartition(".")
        start, _, rest = name.partition(".")
        layer = re.fullmatch(r"(text|fusion)\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if layer:
            number = int(layer[2]) + (2 if layer[1] == "fusion" else 0)
            new = f"text_encoder.bert.encoder.layer.{number}.{inside[layer[3]]}.{layer[4]}"
        elif around in names:
            new = f"{names[around]}.{kind}"
        elif name == "projections.temperature":
            new = "temp"
        elif name == "word_head.bias":
            new = "text_encoder.cls.predictions.bias"
        elif start == "video":
            new = f"vision_encoder.encoder.{rest}"
        elif start == "heads":
            new = f"vision_encoder.clip_decoder.{rest}"
        elif start == "teacher":
            new = f"clip_teacher.{rest}"
        else:
            raise AssertionError(name)
        found[new] = value.clone().contiguous()
    return found | {
        "text_encoder.bert.embeddings.token_type_embeddings.weight": torch.zeros(2, 24),
        "text_encoder.bert.embeddings.position_ids": torch.arange(9)[None],
    }


@pytest.fixture(scope="module")
def published():
    model = make_umt(words=SIZES_OF_DATA).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def load(tmp_path, state, absent=(), words=SIZES_OF_DATA):
    file = tmp_path / "b16.safetensors"
    save_file(state, file)
    torch.manual_seed(3)
    model = make_umt(absent, words, weights=str(file))
    with torch.no_grad():
        model.projections.video.weight.zero_()
    model.load_pretrained()
    return model


def test_a_file_of_the_second_stage_fills_every_part_but_the_teacher(tmp_path, published):
    model = load(tmp_path, theirs(published)).eval()
    mine, expected = model.state_dict(), published.state_dict()
    differing = {n.split(".")[0] for n, v in mine.items() if not torch.equal(v, expected[n])}
    assert differing <= {"teacher"}
    batch = make_batch(rows=2, text=torch.tensor([[2, 5, 3], [2, 6, 3]]),
                       text_length=torch.tensor([3, 3]))  # fmt: skip
    torch.testing.assert_close(model.encode_video(batch), published.encode_video(batch))
    torch.testing.assert_close(model.encode_text(batch), published.encode_text(batch))


def test_what_a_file_has_nothing_of_is_said_and_absent_parts_are_left(tmp_path, published, caplog):
    state = {n: v for n, v in theirs(published).items() if "cls." not in n and n[:4] != "itm_"}
    load(tmp_path, state, absent=("heads", "teacher"))
    assert "begin with chance: word_head, matching" in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("vision_proj.bias"), r"\(projections\) .* 1 missing: video\.bias"),
        (lambda s: s.update(more=torch.zeros(1)), "no part of the model has: more"),
        (
            lambda s: s.update({"text_encoder.bert.encoder.layer.0.x.weight": torch.zeros(1)}),
            r"no part of the model has: text_encoder\.encoder\.layer\.0\.x\.weight",
        ),
        (
            lambda s: s.update({"vision_encoder.encoder.blocks.3.norm1.bias": torch.zeros(32)}),
            r"no part of the model has: vision_encoder\.encoder\.blocks\.3\.norm1\.bias",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, published, change, said):
    state = theirs(published)
    change(state)
    with pytest.raises(WeightsError, match=said):
        load(tmp_path, state)


def test_one_source_for_each_part(tmp_path):
    file = str(tmp_path / "x.pth")
    with pytest.raises(ValidationError, match="use it without video_weights and text"):
        UMT.Config.model_validate(SMALL | {"weights": file, "video_weights": file})
    assert SIZES["hidden_size"] == SMALL["text"]["width"]
