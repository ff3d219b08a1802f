"""Classification: its loss by hand, gradients, views that are averaged, what is refused."""

import pytest
import torch
from torch.nn import functional

from msvqa.data.batch import NO_LABEL
from msvqa.engine.optim import build_optimizer
from msvqa.errors import RecipeError
from msvqa.objectives.classification import Classification
from msvqa.objectives.distillation import Distillation
from msvqa.objectives.mixing import MixingConfig, mix
from msvqa.recipe import OptimizerConfig
from tests.models.small import make_dualvgr
from tests.models.small_umt import LABELS, make_batch, make_umt

OTHERS = ("teacher", "heads", "text", "fusion", "projections")


def classification(absent=OTHERS, **config):
    model = make_umt(absent)
    # Born with all labels alike, which would hide what is compared here.
    torch.nn.init.normal_(model.classifier.head.weight)
    objective = Classification(Classification.Config(**config), model)
    for module in objective.frozen():
        module.requires_grad_(False)
    return objective.train()


def test_the_loss_is_the_smoothed_cross_entropy_of_the_pooled_tokens():
    objective, batch = classification(smoothing=0.2), make_batch()
    model = objective.model
    (tokens,) = model.video.layers(model.video.embed(model._clips(batch)), [2])
    pooled = model.classifier.norm(tokens.mean(dim=1))
    probable = torch.log_softmax(model.classifier.head(pooled), dim=1)
    target = functional.one_hot(batch["label"], LABELS) * 0.8 + 0.2 / LABELS
    parts = objective(batch)
    torch.testing.assert_close(parts["loss"], -(probable * target).sum(dim=1).mean())
    right = (probable.argmax(dim=1) == batch["label"]).float().mean()
    torch.testing.assert_close(parts["accuracy"], right)


@pytest.mark.parametrize("absent", [OTHERS, ()])
def test_gradients_reach_what_is_trained_and_nothing_else(absent):
    objective = classification(absent)
    objective(make_batch())["loss"].backward()
    for name, parameter in objective.model.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), name
        trained = name.startswith(("video.", "classifier.")) and "video.norm" not in name
        assert parameter.requires_grad == trained, name


def test_a_new_classifier_finds_all_labels_nearly_as_probable():
    objective = Classification(Classification.Config(), make_umt(OTHERS)).eval()
    found = objective.predict(make_batch())["probability"]
    torch.testing.assert_close(found, torch.full_like(found, 1 / LABELS), atol=1e-3, rtol=0)


def test_the_probabilities_of_views_are_averaged():
    objective, batch = classification().eval(), make_batch(rows=4)
    objective.top_k = LABELS
    views = batch["frames"].unflatten(0, (2, 2))  # two media of two views each
    both = make_batch(rows=2) | {"frames": views}
    with torch.no_grad():
        single = torch.softmax(objective.model.classify(batch), dim=1).view(2, 2, LABELS).mean(1)
        seen = objective.predict(both)
        torch.testing.assert_close(seen["probability"], single.sort(descending=True).values)
        assert torch.equal(seen["top"], single.argsort(descending=True))
        one = objective.predict(both | {"frames": views[:, :1]})
        alone = objective.predict(both | {"frames": views[:, 0]})
    torch.testing.assert_close(one["probability"], alone["probability"])


def test_several_clips_of_a_medium_have_the_mean_of_their_losses():
    objective, batch = classification(), make_batch(rows=4)
    clips = batch["frames"].unflatten(0, (2, 2))
    found = objective(make_batch(rows=2) | {"frames": clips})
    labels = torch.tensor([0, 0, 1, 1])
    each = objective(batch | {"label": labels})
    torch.testing.assert_close(found, each)


@pytest.mark.parametrize(("kind", "alpha"), [("mixup", 0.8), ("cutmix", 1.0)])
def test_mixed_clips_have_the_losses_of_both_labels_by_their_parts(kind, alpha):
    objective, batch = classification(mixing={kind: alpha}), make_batch()
    torch.manual_seed(6)
    found = objective(batch)["loss"]
    torch.manual_seed(6)
    mixed = mix(batch["frames"], objective.config.mixing)
    assert 0.02 < mixed.own < 0.98 and mixed.other.tolist() == [3, 2, 1, 0]
    plain = classification()
    own, other = (
        plain(batch | {"frames": mixed.frames, "label": label})["loss"]
        for label in (batch["label"], batch["label"].flip(0))
    )
    torch.testing.assert_close(found, mixed.own * own + (1 - mixed.own) * other)
    assert torch.equal(objective.eval()(batch)["loss"], plain.eval()(batch)["loss"]), "in training"


def test_what_is_cut_in_is_the_part_that_is_told():
    frames = torch.zeros(2, 1, 20, 30, 3, dtype=torch.uint8)
    frames[1] = 1
    for seed in range(8):
        torch.manual_seed(seed)
        mixed = mix(frames, MixingConfig(cutmix=1.0))
        assert float(mixed.frames[1].float().mean()) == pytest.approx(mixed.own)
        assert float(mixed.frames[0].float().mean()) == pytest.approx(1 - mixed.own)
    kinds = set()
    for seed in range(8):
        torch.manual_seed(seed)
        kinds.add(mix(frames, MixingConfig(mixup=0.8, cutmix=1.0)).frames.dtype)
    assert kinds == {torch.uint8, torch.float32}, "one of both in each step"
    assert mix(frames, MixingConfig()) is None


def test_layers_below_the_classifier_have_smaller_rates():
    model = classification().model
    optimizer = build_optimizer(model, OptimizerConfig(lr=1.0, layer_decay=0.5))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    order = [model.classifier.head, *model.video.blocks[::-1], model.video.patch_embed]
    found = [{rates[id(p)] for p in module.parameters()} for module in order]
    assert found == [{1.0}, {0.5}, {0.25}, {0.125}, {0.0625}]
    assert len(rates) == sum(p.requires_grad for p in model.parameters())


def test_a_label_without_a_class_has_no_loss():
    objective = classification().eval()
    batch = make_batch(rows=2, label=torch.tensor([NO_LABEL, NO_LABEL]))
    assert float(objective.loss(batch)["loss"].detach()) == 0


def test_what_cannot_be_classified_is_refused():
    with pytest.raises(RecipeError, match="needs a model with classify, not dualvgr"):
        Classification(Classification.Config(), make_dualvgr())
    for model in (make_umt(("classifier",)), make_umt(words={"vocabulary": 9})):
        with pytest.raises(RecipeError, match=r"parts\.classifier: .* where the data has labels"):
            Classification(Classification.Config(), model)
    batch = make_batch() | {"frames": make_batch()["frames"][:, None]}
    with pytest.raises(RecipeError, match="views, crops"):
        Distillation(Distillation.Config(), make_umt()).loss(batch)
    with pytest.raises(RecipeError, match="views, crops"):
        make_umt().encode_video(batch)
