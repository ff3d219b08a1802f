"""UMT's networks: visible tokens, images, other clips, weight files, parts."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from msvqa.errors import RecipeError, WeightsError
from msvqa.models.layers import masking
from msvqa.models.layers.clip_tower import ClipTower, ClipTowerConfig, image_weights
from msvqa.models.layers.text_transformer import TextConfig
from msvqa.models.layers.video_transformer import (
    VideoTransformer,
    VideoTransformerConfig,
    published,
    take,
)
from msvqa.models.parts import parameters_of, parts_of_weights
from tests.models.small_umt import FRAMES, PIECES, SMALL, TOKENS, make_batch, make_umt


def test_presets_have_the_reported_sizes():
    for preset, millions in (("base", 86), ("large", 303)):
        with torch.device("meta"):
            network = VideoTransformer(VideoTransformerConfig(preset=preset), 8, 224)
        count = sum(parameter.numel() for parameter in network.parameters())
        assert round(count / 1e6) == millions
    assert VideoTransformerConfig(preset="large", depth=23).depth == 23
    assert TextConfig(preset="large").fusion_depth == 5


def test_all_tokens_visible_is_the_unmasked_pass():
    model, batch = make_umt().eval(), make_batch()
    every = torch.arange(FRAMES * TOKENS).expand(4, -1)
    torch.testing.assert_close(model.watch(batch, every).tokens, model.watch(batch).tokens)


def test_what_is_hidden_has_no_influence():
    model, batch = make_umt().eval(), make_batch(rows=1)
    visible = torch.arange(3)[None]  # the first three patches of the first frame
    before = model.watch(batch, visible).tokens
    batch["frames"][:, 1:] = 0
    assert torch.equal(model.watch(batch, visible).tokens, before)
    batch["frames"][:, 0, :8, :8] = 0
    assert not torch.equal(model.watch(batch, visible).tokens, before)


def test_masks_have_as_many_visible_tokens_in_each_frame_and_follow_the_draws():
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(3, FRAMES, TOKENS, generator=generator)
    draws = torch.empty_like(attention).exponential_(generator=generator)
    count = masking.visible_count(TOKENS, 0.8)
    assert (masking.visible_count(196, 0.8), masking.visible_count(196, 0.5)) == (40, 98)
    visible = masking.by_attention(attention, draws, 0.8)
    assert torch.equal(visible, masking.by_attention(attention, draws, 0.8))
    seen = ~masking.hidden(visible, FRAMES * TOKENS).view(3, FRAMES, TOKENS)
    assert (seen.sum(dim=2) == count).all()
    tubes = ~masking.hidden(masking.tube(draws[:, 0], FRAMES, 0.8), FRAMES * TOKENS)
    tubes = tubes.view(3, FRAMES, TOKENS)
    assert (tubes == tubes[:, :1]).all() and (tubes.sum(dim=2) == count).all()
    anywhere = masking.anywhere(draws.flatten(1), 0.8)
    assert anywhere.shape == (3, masking.visible_count(FRAMES * TOKENS, 0.8))
    assert (anywhere.diff(dim=1) > 0).all()


def test_attention_decides_what_is_probably_visible():
    attention = torch.full((1, 1, 10), 1e-3)
    attention[..., 3] = 1.0
    draws = torch.empty(500, 1, 10).exponential_(generator=torch.Generator().manual_seed(0))
    seen = masking.by_attention(attention.expand(500, -1, -1), draws, 0.9)
    assert 0.97 < float((seen == 3).double().mean()) < 1


def test_other_clips_than_those_it_was_built_for():
    model = make_umt().eval()
    batch = make_batch(rows=2)
    assert model.watch(batch | {"frames": batch["frames"][:, :1]}).tokens.shape[1] == TOKENS
    twice = batch["frames"].repeat_interleave(2, dim=1)
    assert model.watch(batch | {"frames": twice}).tokens.shape[1] == 2 * FRAMES * TOKENS
    table = model.video.positions(FRAMES, 4)
    assert torch.equal(model.video.positions(1, 4), table[:TOKENS])


def test_the_vision_encoder_of_videochat2(golden):
    """It runs all blocks but the last, without the final norm, on clips of several lengths."""
    data = np.load(golden / "videochat2/vision.npz", allow_pickle=False)
    meta = json.loads(str(data["meta"]))
    start = "vision_encoder.encoder."
    state = {
        name.removeprefix("state/"): torch.from_numpy(data[name]).double()
        for name in data.files
        if name.startswith(f"state/{start}")
    }
    own, unused = published(state, meta["blocks_run"], start)
    above = {name for name in meta["unused_of_full_checkpoint"] if ".blocks." in name}
    assert {name.removeprefix("vision_encoder.") for name in unused} == above
    config = VideoTransformerConfig(
        width=meta["width"], depth=meta["blocks_run"], heads=meta["heads"], patch_px=meta["patch"]
    )
    size = meta["grid"] * meta["patch"]
    network = VideoTransformer(config, meta["checkpoint_frames"], size).double().eval()
    network.load_state_dict(own)
    for frames in (1, 4, 8, 16):
        clips = torch.from_numpy(data[f"in/video_T{frames}"]).double().transpose(1, 2)
        with torch.no_grad():
            (found,) = network.layers(network.embed(clips), [meta["blocks_run"] - 1])
        expected = data[f"out64/T{frames}/encoder"]
        np.testing.assert_allclose(found.view(expected.shape), expected, rtol=0, atol=1e-6)
        places = network.positions(frames, meta["grid"])
        expected = data[f"out64/T{frames}/encoder_positions"]
        np.testing.assert_allclose(places, expected, rtol=0, atol=1e-6)


def test_the_teacher_reads_the_layout_of_transformers_and_of_openai(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = ClipTowerConfig.model_validate(SMALL["teacher"])
    theirs = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=24, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
            image_size=32, patch_size=8, projection_dim=16, hidden_act="quick_gelu",
        )
    ).eval()  # fmt: skip
    tower = ClipTower(config)
    tower.load_state_dict(image_weights(theirs.state_dict()))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = theirs(images).image_embeds
        torch.testing.assert_close(tower(images), expected, rtol=1e-4, atol=1e-5)
        other = ClipTower(config)
        other.load_state_dict(
            image_weights({f"visual.{n}": v for n, v in tower.state_dict().items()} | {"x": images})
        )
        assert torch.equal(other(images), tower(images))


def test_weight_files_are_checked_by_name_and_shape(tmp_path):
    model = make_umt()
    teacher = {f"visual.{n}": v.contiguous() for n, v in model.teacher.state_dict().items()}
    video = {
        f"vision_encoder.encoder.{n}": v.contiguous() for n, v in model.video.state_dict().items()
    }
    files = [str(tmp_path / f"{name}.safetensors") for name in ("teacher", "video")]
    for file, state in zip(files, (teacher, video), strict=True):
        save_file(state, file)
    named = {"teacher": SMALL["teacher"] | {"weights": files[0]}, "video_weights": files[1]}
    other = make_umt(**named)
    torch.nn.init.zeros_(other.teacher.proj)
    other.load_pretrained()
    assert torch.equal(other.teacher.proj, model.teacher.proj)
    assert other.weight_files() == {"video": [files[1]], "teacher": [files[0]]}
    save_file(teacher | {"visual.proj": torch.zeros(3, 3)}, files[0])
    with pytest.raises(WeightsError, match=r"proj \(3, 3\) instead of \(24, 16\)"):
        other.load_pretrained()
    del video["vision_encoder.encoder.blocks.1.attn.q_bias"]
    save_file(video, files[1])
    with pytest.raises(WeightsError, match=r"1 missing: blocks\.1\.attn\.q_bias"):
        other.load_pretrained()


def test_every_parameter_is_in_one_part_and_parts_may_be_absent():
    model = make_umt(words=PIECES | {"labels": 3})
    assert set(parts_of_weights(model, model.parts()).values()) == {"video", *model.optional}
    counted = sum(len(members) for members in parameters_of(model.parts()).values())
    assert counted == len(list(model.parameters()))
    small = make_umt(absent=model.optional)
    assert set(small.parts()) == {"video"}
    depths = {model.depth_of(name) for name, _ in model.named_parameters()}
    assert depths == {None, 0, 1, 2, 3}


def test_what_the_data_has_no_words_for_is_absent():
    texts, labels = make_umt(words={"vocabulary": 9}), make_umt(words={"labels": 3})
    assert set(texts.parts()) == {"video", *texts.optional} - {"classifier", "decoder"}
    assert set(labels.parts()) == {"video", *labels.optional} - {"text", "fusion", "decoder"}
    answers = make_umt(words=PIECES)
    assert set(answers.parts()) == {"video", *answers.optional} - {"classifier"}
    assert labels.classify(make_batch(rows=2)).shape == (2, 3)
    with pytest.raises(
        RecipeError, match=r"parts\.text: of this data the model has classifier, heads"
    ):
        labels.freeze(["text"])


def test_a_student_with_other_tokens_than_its_teacher_is_refused():
    with pytest.raises(RecipeError, match="2 frames make a token of the student, 1 makes one"):
        make_umt(video=SMALL["video"] | {"tubelet": 2})
    with pytest.raises(RecipeError, match="4 of the 3 layers of teacher"):
        make_umt(aligned_layers=4, video=SMALL["video"] | {"depth": 5})


def test_a_teacher_of_other_patches_sees_as_many():
    model = make_umt(teacher=SMALL["teacher"] | {"patch_px": 7, "trained_px": 42}).eval()
    lesson = model.learn(make_batch(rows=2))
    assert lesson.attention.shape == (2, FRAMES, TOKENS)
    visible = torch.arange(5).expand(2, -1)
    assert model.teach(lesson, visible).shape == (2, 2, 5, 16)


def test_take_keeps_the_order():
    tokens = torch.arange(24.0).view(2, 2, 3, 2)
    assert torch.equal(take(tokens, torch.tensor([[0, 2], [1, 2]]))[1, 1], tokens[1, 1, 1:])
