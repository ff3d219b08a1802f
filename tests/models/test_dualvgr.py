"""DualVGR: sizes, weights of the reference, learning."""

import pytest
import torch

from msvqa.errors import DataError, RecipeError, WeightsError
from msvqa.models.dualvgr import DualVGR, load_reference
from msvqa.models.model import Sizes
from msvqa.models.reference import to_reference
from msvqa.objectives.answering import Answering
from tests.models.small import expand, gradients, largest_difference, make_batch, make_dualvgr

MSVD = Sizes(
    vocabulary=4809, answers=1854, num_clips=8, frames_per_clip=16, size_px=224,
    appearance_width=2048, motion_width=2048, word_size=300,
)  # fmt: skip


def answering(**changes):
    fields = {"dropout": 0.0, "state_dropout": 0.0} | changes
    return Answering(Answering.Config(), make_dualvgr(**fields)).train()


@pytest.mark.parametrize(
    ("units", "total"), [(1, 24_087_004), (2, 28_691_949), (3, 33_296_894), (4, 37_901_839)]
)
def test_parameter_counts_are_the_published_ones(units, total):
    with torch.device("meta"):
        model = DualVGR(DualVGR.Config(units=units), MSVD)
    assert sum(p.numel() for p in model.parameters()) == total


def test_gradients_reach_every_parameter():
    objective = answering()
    found = gradients(objective, make_batch())
    assert set(found) == {name for name, _ in objective.named_parameters()}
    offsets = (".score.bias", ".pair_bias")
    assert [n for n, g in found.items() if not g.any() and not n.endswith(offsets)] == []


def test_once_per_video_equals_once_per_question():
    objective, batch = answering().double(), make_batch(videos=3, per_video=2)
    batch["video_index"] = torch.tensor([0, 1, 1, 1, 1, 2])
    assert (
        largest_difference(gradients(objective, batch), gradients(objective, expand(batch))) <= 1e-9
    )


def test_padding_beyond_the_longest_question_changes_nothing():
    objective, batch = answering().double(), make_batch()
    longer = torch.cat([batch["question"], torch.zeros(8, 5, dtype=torch.long)], dim=1)
    padded = gradients(objective, batch | {"question": longer})
    assert largest_difference(padded, gradients(objective, batch)) <= 1e-12


def test_padding_and_unknown_words_keep_their_vectors():
    objective, batch = answering(), make_batch()
    before = objective.model.network.question.embedding.weight[:2].clone()
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()
    assert torch.equal(objective.model.network.question.embedding.weight[:2], before)


@pytest.mark.long
def test_learns_eight_examples():
    objective, batch = answering(), make_batch()
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()
    best = objective.eval().predict(batch)["top"][:, 0]
    assert torch.equal(best, batch["answer"])


def test_half_precision_features_are_read():
    objective, batch = answering().eval(), make_batch()
    half = {key: batch[key].half() for key in ("appearance", "motion")}
    found, expected = objective.model.answer(batch | half), objective.model.answer(batch)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-2)


def test_features_of_another_width_are_refused():
    objective, batch = answering(), make_batch()
    with pytest.raises(DataError, match=r"motion features.*\(4, 3, 320\).*20 wide.*pool_motion"):
        objective(batch | {"motion": torch.zeros(4, 3, 320)})


def test_features_are_needed():
    sizes = Sizes(vocabulary=9, answers=4, num_clips=2, frames_per_clip=2, size_px=32)
    with pytest.raises(RecipeError, match="features"):
        DualVGR(DualVGR.Config(), sizes)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint as the reference program writes it, and the model it holds."""
    model = make_dualvgr(units=3, heads=4).eval()
    state = to_reference(model.network.state_dict(), heads=4)
    content = {
        "epoch": 4,
        "state_dict": state,
        "model_kwargs": {"module_dim": 16, "vocab": {"a": 1}},
    }
    torch.save(content, tmp_path / "ckpt.pt")
    return tmp_path / "ckpt.pt", content, model


def test_a_checkpoint_of_the_reference_loads_with_its_sizes(checkpoint):
    path, _, model = checkpoint
    loaded = load_reference(path, num_clips=3, frames_per_clip=4)
    assert (loaded.config.units, loaded.config.heads, loaded.config.hidden_size) == (3, 4, 16)
    batch = make_batch()
    assert torch.equal(loaded.answer(batch).logits, model.answer(batch).logits)


def test_a_recipe_starts_from_a_checkpoint_of_the_reference(checkpoint):
    path, _, model = checkpoint
    other = make_dualvgr(units=3, heads=4, weights=str(path))
    torch.nn.init.zeros_(other.network.motion.weight)
    other.load_pretrained()
    assert torch.equal(other.network.motion.weight, model.network.motion.weight)


def test_names_of_another_checkpoint_are_listed(checkpoint):
    path, content, _ = checkpoint
    state = content["state_dict"]
    del state["visual_input_unit.acGCN.1.attention_2.W.weight"]
    state["output_unit.extra"] = torch.zeros(1)
    torch.save(content, path)
    with pytest.raises(WeightsError) as error:
        load_reference(path)
    assert "missing: visual_input_unit.acGCN.1.attention_2.W.weight" in str(error.value)
    assert "unknown: output_unit.extra" in str(error.value)


def test_other_files_are_not_checkpoints_of_the_reference(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="not a DualVGR checkpoint"):
        load_reference(tmp_path / "other.pth")


def test_several_graph_layers_have_graphs_of_their_own():
    ours, reference = (
        make_dualvgr(units=2, graph_layers=2, reference_graph_layers=flag) for flag in (False, True)
    )
    assert ours.unused_in_answering() == []
    graphs = reference.network.reasoning
    assert reference.unused_in_answering() == [
        graphs.specific_appearance[3],
        graphs.common_appearance[3],
        graphs.specific_motion[3],
        graphs.common_motion[3],
    ]
    assert len(ours.answer(make_batch()).common_motion) == 4
