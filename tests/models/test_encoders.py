"""Encoders: published names and counts, weight files, input scales."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from msvqa.errors import RecipeError, WeightsError
from msvqa.models.encoders import ENCODERS
from msvqa.models.encoders.efficientnet import EfficientNet
from msvqa.models.encoders.resnet import ResNet
from msvqa.models.encoders.resnext3d import ResNeXt3D
from msvqa.models.encoders.umt import UMTEncoder
from msvqa.sections import resolve
from tests.models.small_umt import SMALL, make_batch, make_umt

SMALL_RESNET = {"depth": 10, "base_width": 4, "stem": "small", "scale": "unit"}
SMALL_RESNEXT = {"depth": 14, "base_width": 4, "groups": 2, "stem": "small", "scale": "unit"}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def frames(*shape):
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.long
@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_equals_torchvision(depth, tmp_path):
    theirs = torchvision.models.get_model(f"resnet{depth}", weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    ours = ResNet(ResNet.Config(depth=depth, weights=str(tmp_path / "resnet.pth"))).eval()
    ours.load_pretrained()
    pixels = frames(2, 64, 64)
    theirs.fc = nn.Identity()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = theirs(((pixels / 255 - mean) / std).movedim(-1, 1))
        torch.testing.assert_close(ours(pixels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_efficientnet_equals_torchvision(ending, tmp_path):
    theirs = torchvision.models.efficientnet_b0(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    file = str(tmp_path / f"b0.{ending}")
    {"pth": torch.save, "safetensors": save_file}[ending](theirs.state_dict(), file)
    ours = EfficientNet(EfficientNet.Config(variant="b0", weights=file)).eval()
    ours.load_pretrained()
    pixels = frames(2, 64, 64)
    theirs.classifier = nn.Identity()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = theirs(((pixels / 255 - mean) / std).movedim(-1, 1))
        torch.testing.assert_close(ours(pixels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    ("variant", "width", "parameters"),
    [("b0", 1280, 5_288_548), ("b3", 1536, 12_233_232), ("b7", 2560, 66_347_960)],
)
def test_an_efficientnet_has_the_published_size_without_its_classifier(variant, width, parameters):
    with torch.device("meta"):
        network = EfficientNet(EfficientNet.Config(variant=variant))
    assert network.width == width
    assert count(network) == parameters - (width + 1) * 1000


@pytest.mark.long
def test_weights_of_another_efficientnet_are_refused(tmp_path):
    file = str(tmp_path / "b1.pth")
    torch.save(torchvision.models.efficientnet_b1(weights=None).state_dict(), file)
    network = EfficientNet(EfficientNet.Config(variant="b0", weights=file))
    with pytest.raises(WeightsError, match=r"b1\.pth does not fit the model; \d+ unknown"):
        network.load_pretrained()


def test_parameter_counts_are_the_published_ones():
    with torch.device("meta"):
        assert count(ResNet(ResNet.Config())) == 42_500_160
        assert count(ResNeXt3D(ResNeXt3D.Config())) == 47_521_216


@pytest.mark.parametrize("memory_format", [None, "last"])
def test_memory_layout_does_not_change_features(memory_format):
    resnet = ResNet(ResNet.Config(**SMALL_RESNET)).eval()
    resnext = ResNeXt3D(ResNeXt3D.Config(**SMALL_RESNEXT)).eval()
    images, clips = frames(2, 32, 32), frames(2, 4, 32, 32)
    expected = resnet(images), resnext(clips)
    if memory_format:
        resnet.to(memory_format=torch.channels_last)
        resnext.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close((resnet(images), resnext(clips)), expected, rtol=1e-4, atol=1e-5)


SMALL_UMT = {
    "width": 16, "depth": 2, "heads": 2, "patch_px": 8, "trained_frames": 4, "trained_px": 32,
}  # fmt: skip
FOLDED = {
    "resnet": (ResNet.Config(**SMALL_RESNET), (2, 32, 32)),
    "resnet of bottlenecks": (ResNet.Config(depth=50, base_width=4), (2, 48, 48)),
    "resnext3d": (ResNeXt3D.Config(**SMALL_RESNEXT), (2, 4, 32, 32)),
    "efficientnet": (EfficientNet.Config(variant="b0"), (2, 32, 32)),
    "umt": (UMTEncoder.Config(video=SMALL_UMT), (2, 4, 32, 32)),
}


@pytest.mark.parametrize("config", FOLDED)
def test_folding_batch_norm_changes_features_by_rounding_alone(config):
    given, shape = FOLDED[config]
    encoder = resolve(given.name, ENCODERS, "encoder")(given)
    norms = [part for part in encoder.modules() if isinstance(part, _BatchNorm)]
    for norm in norms:
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.1)
    if norms:
        with pytest.raises(ValueError, match="is in training mode: call eval"):
            encoder.train().fold_batch_norm()
    pixels = frames(*shape)
    expected = encoder.eval().double()(pixels)
    encoder.fold_batch_norm()
    assert not any(isinstance(part, _BatchNorm) for part in encoder.modules())
    torch.testing.assert_close(encoder(pixels), expected, rtol=1e-9, atol=1e-12)


def test_every_encoder_is_folded():
    assert {given.name for given, _ in FOLDED.values()} == set(ENCODERS)


@pytest.mark.parametrize("stem", ["small", "published", "brief"])
@pytest.mark.parametrize("size_px", [33, 48])
def test_any_size_and_stem_give_the_same_width(stem, size_px):
    if stem != "brief":
        resnet = ResNet(ResNet.Config(**SMALL_RESNET | {"stem": stem}))
        assert resnet(frames(2, size_px, size_px)).shape == (2, resnet.width) == (2, 32)
    resnext = ResNeXt3D(ResNeXt3D.Config(**SMALL_RESNEXT | {"stem": stem}))
    assert resnext(frames(2, 8, size_px, size_px)).shape == (2, resnext.width) == (2, 64)


@pytest.mark.parametrize(
    ("stem", "expected"), [("published", (4, 12)), ("small", (8, 24)), ("brief", (8, 12))]
)
def test_stems_keep_so_many_frames_and_pixels(stem, expected):
    resnext = ResNeXt3D(ResNeXt3D.Config(**SMALL_RESNEXT | {"stem": stem}))
    given = torch.randn(1, 3, 8, 48, 48)
    assert resnext.maxpool(resnext.conv1(given)).shape[2:4] == expected


def test_what_stands_still_does_not_change_the_motion_of_changes():
    clip, still = frames(1, 8, 32, 32) // 2, frames(1, 1, 32, 32) // 2
    for sees, is_equal in (("changes", True), ("pixels", False)):
        torch.manual_seed(0)
        resnext = ResNeXt3D(ResNeXt3D.Config(**SMALL_RESNEXT | {"sees": sees})).double().eval()
        found = resnext(clip), resnext(clip + still)
        assert torch.allclose(*found, atol=1e-9) == is_equal


def published_checkpoint(network, classes=5):
    """Return what an old torch saved of a network in parallel, with its classifier."""
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    state |= {"fc.weight": torch.randn(classes, network.width), "fc.bias": torch.randn(classes)}
    state = {f"module.{name}": value for name, value in state.items()}
    return {"arch": "resnext-14", "epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}


def test_motion_weights_load_as_published(tmp_path):
    source = ResNeXt3D(ResNeXt3D.Config(**SMALL_RESNEXT))
    torch.save(published_checkpoint(source), tmp_path / "kinetics.pth")
    config = ResNeXt3D.Config(**SMALL_RESNEXT, weights=str(tmp_path / "kinetics.pth"))
    loaded = ResNeXt3D(config)
    loaded.load_pretrained()
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.parameters(), source.parameters(), strict=True)
    )


def test_weights_of_another_network_are_refused_with_all_names(tmp_path):
    content = published_checkpoint(ResNeXt3D(ResNeXt3D.Config(**SMALL_RESNEXT)))
    state = content["state_dict"]
    state["module.layer5.weight"] = torch.zeros(1)
    del state["module.bn1.bias"]
    state["module.conv1.weight"] = torch.zeros(2, 3, 7, 7, 7)
    torch.save(content, tmp_path / "other.pth")
    config = ResNeXt3D.Config(**SMALL_RESNEXT, weights=str(tmp_path / "other.pth"))
    with pytest.raises(WeightsError) as error:
        ResNeXt3D(config).load_pretrained()
    message = str(error.value)
    assert "1 missing: bn1.bias" in message
    assert "1 unknown: layer5.weight" in message
    assert "conv1.weight (2, 3, 7, 7, 7) instead of (2, 3, 3, 3, 3)" in message


class Surprise:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("content", [Surprise(), {"state_dict": {"a": "b"}}, [1, 2]])
def test_files_without_tensors_are_refused(content, tmp_path, capsys):
    torch.save(content, tmp_path / "bad.pth")
    config = ResNet.Config(**SMALL_RESNET, weights=str(tmp_path / "bad.pth"))
    with pytest.raises(WeightsError, match=r"bad\.pth"):
        ResNet(config).load_pretrained()
    assert "code ran" not in capsys.readouterr().out


def test_damaged_and_absent_files_are_refused(tmp_path):
    (tmp_path / "text.pth").write_text("not weights")
    for name in ("text.pth", "absent.pth"):
        config = ResNet.Config(**SMALL_RESNET, weights=str(tmp_path / name))
        with pytest.raises(WeightsError, match=name):
            ResNet(config).load_pretrained()


def statistics(network):
    return [b.clone() for n, b in network.named_buffers() if "running" in n]


def changed(before, after):
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("batch_norm", "weights", "moves"),
    [("frozen", None, False), ("train", None, True), (None, None, True), (None, "x.pth", False)],
)
def test_batch_norm_follows_its_setting(batch_norm, weights, moves):
    network = ResNet(ResNet.Config(**SMALL_RESNET, batch_norm=batch_norm, weights=weights)).train()
    before = statistics(network)
    network(frames(4, 32, 32))
    assert changed(before, statistics(network)) is moves


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("imagenet", [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375]),
        ("reference", [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.12]),
        ("unit", [1.0, -1.0, -1.0]),
    ],
)
def test_scales_of_frames(scale, expected):
    network = ResNet(ResNet.Config(**SMALL_RESNET | {"scale": scale}))
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(1, 2, 2, 3)
    found = network.scale(red, like=network.conv1.weight)[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_scales_of_clips():
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(1, 2, 2, 2, 3)
    expected = {"none": [255.0, 0, 0], "activitynet": [255 - 114.7748, -107.7354, -99.4750]}
    for scale, values in expected.items():
        network = ResNeXt3D(ResNeXt3D.Config(**SMALL_RESNEXT | {"scale": scale}))
        found = network.scale(red, like=network.conv1.weight)[0, :, 0, 0, 0]
        torch.testing.assert_close(found, torch.tensor(values))


def test_pixels_of_another_kind_are_refused():
    network = ResNet(ResNet.Config(**SMALL_RESNET))
    with pytest.raises(ValueError, match=r"uint8 pixels \(N, H, W, 3\)"):
        network(torch.zeros(2, 32, 32, 3))
    with pytest.raises(ValueError, match="N, H, W, 3"):
        network(frames(2, 4, 32, 32))


def test_groups_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of groups"):
        ResNeXt3D.Config(base_width=8, groups=3)


def test_umt_gives_a_vector_of_a_frame_and_of_a_clip_of_any_length():
    encoder = UMTEncoder(UMTEncoder.Config(video=SMALL_UMT)).eval()
    assert encoder(frames(3, 32, 32)).shape == (3, encoder.width) == (3, 16)
    clip = frames(2, 6, 48, 48)
    found = encoder(clip)
    assert found.shape == (2, 16)
    assert not torch.allclose(found, encoder(clip.flip(1))), "it sees the order of frames"
    with pytest.raises(RecipeError, match="36 x 36 px are no whole number of patches of 8 px"):
        encoder(frames(1, 36, 36))


def test_umt_sees_what_the_model_does():
    model = make_umt().eval()
    encoder = UMTEncoder(UMTEncoder.Config(video=SMALL["video"] | {
        "trained_frames": 4, "trained_px": 32,
    })).eval()  # fmt: skip
    encoder.video.load_state_dict(model.video.state_dict())
    batch = make_batch(rows=2)
    expected = model.watch(batch).tokens.mean(dim=1)
    torch.testing.assert_close(encoder(batch["frames"]), expected)


@pytest.mark.parametrize("start", ["vision_encoder.encoder.", "encoder.", "video.", ""])
def test_umt_reads_published_files_and_checkpoints(tmp_path, start):
    source = UMTEncoder(UMTEncoder.Config(video=SMALL_UMT))
    state = {f"{start}{n}": v.clone() for n, v in source.video.state_dict().items()}
    more = {} if start == "" else {"text.words.weight": torch.zeros(2, 2)}
    save_file(state | more, tmp_path / "weights.safetensors")
    weights = str(tmp_path / "weights.safetensors")
    torch.manual_seed(9)
    loaded = UMTEncoder(UMTEncoder.Config(video=SMALL_UMT, weights=weights))
    loaded.load_pretrained()
    both = zip(loaded.parameters(), source.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in both)
    deeper = UMTEncoder(UMTEncoder.Config(video=SMALL_UMT | {"depth": 3}, weights=weights))
    with pytest.raises(WeightsError, match=r"missing: blocks\.2\.norm1\.weight"):
        deeper.load_pretrained()


@pytest.mark.parametrize(("trains", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_the_published_stem_of_clips_learns_in_float32_on_processors(trains, dtype):
    # PyTorch's bf16 gradient of these weights writes beyond its memory there.
    encoder = ResNeXt3D(ResNeXt3D.Config(**SMALL_RESNEXT | {"stem": "published"}))
    encoder.conv1.weight.requires_grad_(trains)
    seen = {}
    for name in ("conv1", "bn1", "layer1.0.conv1"):
        encoder.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output.dtype})
        )
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(frames(2, 4, 32, 32))
    assert seen["conv1"] == dtype
    assert seen["bn1"] == seen["layer1.0.conv1"] == torch.bfloat16, "the rest stays in bf16"
    features.float().sum().backward()
    assert (encoder.conv1.weight.grad is not None) == trains
