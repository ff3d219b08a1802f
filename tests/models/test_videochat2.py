"""VideoChat2: what its stages train, what its queries see, and what it writes."""

import pytest
import torch
from torch.nn import functional

from msvqa.data.conversations.conversation import Conversation, Turn
from msvqa.errors import RecipeError
from msvqa.models.layers.adapters import AdapterConfig
from msvqa.models.layers.language_input import Text, assemble, target_logits
from msvqa.models.layers.writing import WritingConfig, write_answers
from msvqa.models.parts import parameters_of, parts_of_weights
from msvqa.models.videochat2 import STAGES, HeadsConfig, VideoChat2
from msvqa.objectives.generation import Generation
from msvqa.objectives.query_alignment import QueryAlignment
from tests.models.small_videochat2 import (
    SIZES,
    TURNS,
    WIDTH,
    asked,
    built,
    captioned,
    config_of,
    language_folder,
    seen,
    word_tokenizer,
)


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return language_folder(tmp_path_factory.mktemp("language"))


def objective_of(stage, language):
    model = built(stage, language)
    if stage == "align":
        return QueryAlignment(QueryAlignment.Config(max_words=16), model), captioned()
    return Generation(Generation.Config(), model), asked()


def texts():
    """Return ids and mask of four texts."""
    ids = torch.randint(5, 39, (4, 5), generator=torch.Generator().manual_seed(4))
    return ids, torch.arange(5) < torch.tensor([5, 3, 4, 5])[:, None]


def given_of(objective, batch):
    """Return what the language model is given of a batch that is learned from."""
    texts = objective.dialogue.learned(objective.conversations(batch), torch.device("cpu"))
    return objective.given(batch, texts)


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_learns_and_leaves_frozen_parts_bit_identical(stage, language):
    objective, batch = objective_of(stage, language)
    model = objective.model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    values = []
    for step in range(25):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss = objective.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0] - 0.1
    own = parts_of_weights(model, model.parts())
    for name, tensor in model.state_dict().items():
        if own[name] in STAGES[stage]["frozen"]:
            assert torch.equal(tensor, before[name]), name
    frozen = [p for part in STAGES[stage]["frozen"] for p in parameters_of(model.parts())[part]]
    assert all(p.grad is None for p in frozen)


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_reach_everything_that_is_trained(stage, language):
    objective, batch = objective_of(stage, language)
    objective.train()
    objective.loss(batch)["loss"].backward()
    model = objective.model
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    # Instructions are read, and none of them is written.
    assert [n for n in idle if "word_head" not in n] == []


def test_bug_2_matching_has_one_function_for_every_pooling():
    ids, mask = texts()
    for pooling in ("none", "add", "cat"):
        model = built("align", heads=HeadsConfig(width=16, pooling=pooling))
        assert model.match_logits(model.see(seen()), ids, mask).shape == (4, 2)


def test_bug_4_everything_is_made_on_the_device_of_the_inputs():
    model = built("align").to("meta")
    ids, mask = (tensor.to("meta") for tensor in texts())
    tokens = model.see({"frames": seen()["frames"].to("meta")})
    queries, words = model.qformer.write(tokens, ids, mask)
    assert {queries.device.type, words.device.type} == {"meta"}
    assert model.match_logits(tokens, ids, mask).shape == (4, 2)


def test_bug_5_a_language_model_that_is_absent_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"model\.sources\.language: .*config\.json"):
        built("connect", tmp_path)


def test_bug_10_extra_queries_are_no_zeros_and_their_gradients_like_those_of_the_others():
    absent = ("heads", "projection", "language", "adapter")
    model = VideoChat2(config_of(), SIZES, absent)
    queries = model.qformer.look(torch.randn(2, 6, WIDTH))
    queries.square().sum().backward()
    own, extra = model.qformer.queries.grad.norm(), model.qformer.extra_queries.grad.norm()
    assert extra < 100 * own


def test_one_pass_of_writing_equals_two():
    model = built("align").double().eval()
    tokens = model.see(seen())
    ids, mask = texts()
    queries, words = model.qformer.write(tokens, ids, mask)
    assert torch.allclose(queries, model.qformer.look(tokens), atol=1e-12)
    # What comes later does not change a word.
    changed = ids.clone()
    changed[:, 3:] = 7
    _, others = model.qformer.write(tokens, changed, mask)
    assert torch.equal(words[:, :3], others[:, :3])


def test_logits_of_places_without_targets_are_never_made(language):
    objective, batch = objective_of("instruct", language)
    objective.eval()
    given = given_of(objective, batch)
    model = objective.model.language
    made = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, __, out: made.append(out.shape))
    logits, words = target_logits(model, given)
    handle.remove()
    assert made == [(1, len(words), logits.shape[1])]
    every = model(inputs_embeds=given.embeddings, attention_mask=given.mask.long()).logits
    expected = functional.cross_entropy(
        every[:, :-1].flatten(0, 1), given.labels[:, 1:].flatten(), ignore_index=-100
    )
    assert torch.allclose(functional.cross_entropy(logits, words), expected, atol=1e-6)


def test_padding_of_any_id_changes_nothing(language):
    model = built("instruct", language).eval()
    ids = torch.tensor([[3, 4, 1, 1]])
    mask = torch.tensor([[True, True, False, False]])
    words = model.language.get_input_embeddings()
    short = assemble(words, 0, Text(ids[:, :2], mask[:, :2]), None, Text(ids[:, :1], mask[:, :1]))
    long = assemble(words, 0, Text(ids, mask), None, Text(ids[:, :1], mask[:, :1]))
    assert torch.equal(short.embeddings, long.embeddings)


def test_a_batch_of_other_lengths_writes_what_each_row_writes_alone(language):
    objective, batch = objective_of("instruct", language)
    objective.eval()
    conversations = [Conversation("video", (Turn(t[0][0], "", t[0][2]),)) for t in TURNS]
    together = objective.respond(batch, conversations, max_new_tokens=8)
    for row in range(4):
        alone = {"frames": batch["frames"][[row]], "video_index": torch.zeros(1, dtype=torch.long)}
        found = objective.respond(alone, [conversations[row]], max_new_tokens=8)
        assert found == [together[row]]


def test_writing_ends_at_a_stop(language):
    objective, batch = objective_of("instruct", language)
    model = objective.model.eval()
    given = given_of(objective, batch)
    tokenizer = word_tokenizer()
    free = write_answers(model.language, tokenizer, given, WritingConfig(max_tokens=6, stop=()))
    stop = free[0].split()[2]
    (first, *_) = write_answers(
        model.language, tokenizer, given, WritingConfig(max_tokens=6, stop=(stop,))
    )
    assert first == free[0].split(stop)[0].strip()


def test_adapters_name_layers_that_there_are(language):
    with pytest.raises(RecipeError, match=r"qkv_proj.*there are.*q_proj"):
        built("instruct", language, adapter=AdapterConfig(targets=("qkv_proj",)))


@pytest.mark.parametrize(("earlier", "later"), [("align", "connect"), ("connect", "instruct")])
def test_bug_15_a_stage_starts_from_the_one_before_with_nothing_missing(earlier, later, language):
    given, model = built(earlier, language), built(later, language)
    own = parts_of_weights(model, model.parts())
    new = set(STAGES[earlier]["absent"]) - set(STAGES[later]["absent"])
    missing = {part for name, part in own.items() if name not in given.state_dict()}
    assert missing - {"language"} == new - {"language"}


def test_adapters_are_saved_in_the_format_of_peft(language, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = built("instruct", language)
    with torch.no_grad():
        for parameter in parameters_of(model.parts())["adapter"]:
            parameter.normal_()
    model.eval().save_adapter(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(language)
    loaded = PeftModel.from_pretrained(plain, tmp_path).eval()
    ids = torch.tensor([[3, 5, 7]])
    assert torch.allclose(loaded(ids).logits, model.language(ids).logits, atol=1e-5)


def test_an_image_is_one_frame_whatever_is_beside_it():
    model = built("align").eval()
    frames = seen()["frames"]
    is_image = torch.tensor([True, False, True, False])[: len(frames)]
    mixed = model.see({"frames": frames, "is_image": is_image})
    videos = model.see({"frames": frames[~is_image]})
    images = model.see({"frames": frames[is_image], "is_image": is_image[is_image]})
    torch.testing.assert_close(mixed[~is_image], videos)
    repeated = images.repeat(1, frames.shape[1], 1)
    torch.testing.assert_close(mixed[is_image], repeated)
    assert images.shape[1] * frames.shape[1] == videos.shape[1]
