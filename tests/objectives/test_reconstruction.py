"""The reconstruction objective."""

import numpy as np
import pytest
import torch

from msvqa.errors import RecipeError
from msvqa.evaluators.reconstruction import Reconstruction as Evaluator
from msvqa.models.layers.pixels import IMAGENET_MEAN, IMAGENET_STD
from msvqa.objectives.reconstruction import Reconstruction
from msvqa.recipe import EvaluationConfig
from tests.models.small import make_batch, make_dualvgr, make_msvqa

EVALUATOR = Evaluator(EvaluationConfig())


def reconstruction():
    return Reconstruction(Reconstruction.Config(), make_msvqa())


def rows(objective, batch):
    with torch.no_grad():
        return {k: v.numpy() for k, v in objective.eval().predict(batch).items()}


def show(objective, batch, color):
    """Let both decoders show one colour (0..255) everywhere."""
    scaled = (torch.as_tensor(color) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    pixels = scaled[:, None, None].expand(len(batch["row"]), 3, 4, 3, 16, 16)
    objective.model.decode_pixels = lambda appearance, motion: (pixels, pixels)
    return objective


def test_the_best_constant_has_no_r_squared():
    objective, batch = reconstruction(), make_batch()
    mean = batch["clips"].double().mean(dim=(0, 1, 2, 3, 4))
    found = EVALUATOR.validate(rows(show(objective, batch, mean), batch), None)
    assert abs(found["r2_appearance"]) < 1e-6
    assert abs(found["r2_motion"]) < 1e-6


def test_black_output_costs_twice_the_mean_square_of_the_pixels():
    objective, batch = reconstruction(), make_batch()
    found = EVALUATOR.validate(rows(show(objective, batch, [0.0, 0.0, 0.0]), batch), None)
    np.testing.assert_allclose(
        found["mse_255"], 2 * batch["clips"].double().square().mean(), rtol=1e-5
    )


def test_a_perfect_output_has_all_of_r_squared():
    objective, batch = reconstruction(), make_batch()
    scaled = (batch["clips"].float() - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    pixels = scaled.movedim(-1, -3)[batch["video_index"]]
    objective.model.decode_pixels = lambda appearance, motion: (pixels, pixels)
    found = EVALUATOR.validate(rows(objective, batch), None)
    assert found["r2_motion"] == pytest.approx(1, abs=1e-9)
    assert float(objective(batch)["loss"]) == 0


def test_metrics_of_a_split_do_not_depend_on_its_batches():
    objective = reconstruction()
    parts = [rows(objective, make_batch(seed=seed)) for seed in (0, 1)]
    joined = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    swapped = {k: np.concatenate([p[k] for p in reversed(parts)]) for k in parts[0]}
    found = EVALUATOR.validate(joined, None)
    assert found == pytest.approx(EVALUATOR.validate(swapped, None))
    assert set(found) == set(EVALUATOR.numbers)
    assert set(found) == {"mse", "mse_255", "r2_appearance", "r2_motion"}


def test_validation_error_is_the_loss():
    objective, batch = reconstruction(), make_batch()
    found = rows(objective, batch)
    with torch.no_grad():
        loss = float(objective(batch)["loss"])
    assert EVALUATOR.validate(found, None)["mse"] == pytest.approx(loss, rel=1e-5)


def test_answer_module_stays_as_it_is():
    objective = reconstruction().train()
    frozen = [t for m in objective.frozen() for t in (*m.parameters(), *m.buffers())]
    before = [t.clone() for t in frozen]
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.1)
    objective(make_batch())["loss"].backward()
    optimizer.step()
    assert all(torch.equal(t, old) for t, old in zip(frozen, before, strict=True))


def test_features_cannot_be_reconstructed():
    with pytest.raises(RecipeError, match="model msvqa"):
        Reconstruction(Reconstruction.Config(), make_dualvgr())
