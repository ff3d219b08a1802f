"""Models of titled videos: sizes, padding, parts, learning."""

import pytest
import torch

from msvqa.errors import RecipeError
from msvqa.models.mix_nextvlad import MixNeXtVLAD
from msvqa.models.model import Sizes
from msvqa.models.parts import parameters_of, parts_of_weights
from msvqa.models.uniter import Uniter
from msvqa.objectives.tagging import Tagging
from tests.models.small import gradients, trainable
from tests.models.titled import LONGEST, TAGS, WIDTH, make_batch, make_model, with_masked_words

PUBLISHED = Sizes(width=1536, frames=32, tags=10_000)
BOTH = pytest.mark.parametrize("name", ["mix_nextvlad", "uniter"])
TEXTS = pytest.mark.parametrize("kind", ["bert", "roformer"])


def sizes_of(model):
    return {part: sum(p.numel() for p in own) for part, own in parameters_of(model.parts()).items()}


def test_parameter_counts_are_the_published_ones():
    with torch.device("meta"):
        mix = MixNeXtVLAD(MixNeXtVLAD.Config(), PUBLISHED)
        bert = Uniter(Uniter.Config(), PUBLISHED)
        roformer = Uniter(Uniter.Config(text={"kind": "roformer"}), PUBLISHED)
    assert sum(p.numel() for p in mix.experts[0].vision.parameters()) == 31_511_560
    found = sizes_of(mix)
    assert round(found["rest"] / 1e6, 1) == 104.7
    assert round(sum(found.values()) / 1e6) == 207
    # The published count has the vectors of 32 positions, and no pooler.
    assert 105e6 < sum(sizes_of(bert).values()) < 107e6
    assert 127e6 < sum(sizes_of(roformer).values()) < 131e6


@BOTH
@TEXTS
def test_shapes_and_that_gradients_reach_every_weight(name, kind):
    model = make_model(name, kind)
    batch = with_masked_words(make_batch())
    described = model.describe(batch)
    assert described.logits.shape == (6, TAGS)
    assert described.embedding.shape == (6, model.config.embedding_size)
    weights = {"masked_words": 1.0} if name == "uniter" else {"contrastive": 1.0, "mixture": 1.0}
    objective = trainable(Tagging(Tagging.Config(**weights), model))
    found = gradients(objective, batch)
    assert set(found) == {n for n, p in objective.named_parameters() if p.requires_grad}
    assert all(gradient.isfinite().all() for gradient in found.values())
    # Adding a number to all keys of a softmax changes nothing.
    still = [n for n, g in found.items() if not g.any() and not n.endswith(".key.bias")]
    assert still == []


@BOTH
@TEXTS
def test_padding_changes_nothing_where_the_recipe_says_so(name, kind):
    batch = make_batch()
    real = torch.arange(batch["vectors"].shape[1]) < batch["num_frames"][:, None]
    other = batch | {
        "vectors": torch.where(real[..., None], batch["vectors"], 7.0),
        "tokens": torch.where(batch["token_mask"], batch["tokens"], 5),
    }
    model = make_model(name, kind, mask_padding=True).eval()
    assert torch.equal(model.describe(batch).embedding, model.describe(other).embedding)
    published = make_model(name, kind).eval()
    assert not torch.equal(published.describe(batch).embedding, published.describe(other).embedding)


@TEXTS
def test_nothing_attends_to_what_is_masked(kind):
    model = make_model("uniter", kind).eval()
    batch = make_batch()
    real = torch.cat([batch["token_mask"], torch.arange(5) < batch["num_frames"][:, None]], dim=1)
    changed = batch | {"tokens": torch.where(batch["token_mask"], batch["tokens"], 5)}
    states, others = model.encode(batch), model.encode(changed)
    assert torch.equal(states[real], others[real])
    assert not torch.equal(states[~real], others[~real])


def test_frames_are_a_set_to_bert_and_a_sequence_to_roformer():
    batch = make_batch() | {"num_frames": torch.full((6,), 5)}
    turned = batch | {"vectors": batch["vectors"].flip(1)}
    for kind, alike in (("bert", True), ("roformer", False)):
        model = make_model("uniter", kind).eval()
        first, second = (model.describe(b).embedding for b in (batch, turned))
        assert torch.allclose(first, second, atol=1e-6) is alike


def test_the_sinusoids_are_not_trained():
    objective = trainable(Tagging(Tagging.Config(), make_model("uniter", "roformer")))
    table = objective.model.text.network.encoder.embed_positions.weight
    assert not table.requires_grad
    assert torch.allclose(table[0], torch.tensor([0.0] * 4 + [1.0] * 4))


def test_the_head_of_words_is_a_part_that_may_be_absent():
    whole, without = make_model("uniter"), make_model("uniter", absent=["words"])
    assert {*whole.parts()} - {*without.parts()} == {"words"}
    assert parts_of_weights(whole, whole.parts())["head.bias"] == "words"
    assert set(without.state_dict()) < set(whole.state_dict())
    with pytest.raises(RecipeError, match="masked_words: model uniter predicts no words"):
        Tagging(Tagging.Config(masked_words=1.0), without)


def test_what_does_not_go_together_is_refused_by_name():
    with pytest.raises(RecipeError, match="cannot train on a single video"):
        make_model("mix_nextvlad").train().describe(make_batch(1))
    assert make_model("mix_nextvlad").eval().describe(make_batch(1)).embedding.shape == (1, 16)
    with pytest.raises(ValueError, match=r"11 positions, and model.text.positions is 8"):
        make_model("uniter", text={"positions": LONGEST + 2}).describe(make_batch())
    with pytest.raises(RecipeError, match="groups: 7 do not divide"):
        make_model("mix_nextvlad", groups=7)
    with pytest.raises(RecipeError, match="reads rows of vectors"):
        Uniter(Uniter.Config(), Sizes(width=WIDTH, frames=None, tags=TAGS))
    with pytest.raises(ValueError, match="not a multiple of heads"):
        Uniter.Config(text={"width": 10, "heads": 4})


@pytest.mark.long
@BOTH
def test_eight_videos_are_learned_by_heart(name):
    model = make_model(name)
    objective = trainable(Tagging(Tagging.Config(), model))
    batch = make_batch(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 20
