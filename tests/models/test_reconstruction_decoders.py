"""Pixel decoders."""

import pytest
import torch

from msvqa.models.layers.pixels import ACTIVITYNET_MEAN, IMAGENET_MEAN, IMAGENET_STD, to_pixels
from msvqa.models.layers.reconstruction import ConvDecoder, DecoderConfig, LinearDecoder

PUBLISHED = {  # id of the published runs: layer2, layer3, layer4
    "1": (512, 256, 512),
    "2": (512, 1024, 512),
    "4": (256, 512, 256),
}
LINEAR_PAIRS = {"1": 80_635_392, "2": 82_209_792, "4": 79_979_520}
CONV_PAIRS = {"1": 83_976_710, "2": 184_644_614, "4": 58_767_878}


def config(run, **fields):
    layers = dict(zip(("layer2", "layer3", "layer4"), PUBLISHED[run], strict=True))
    return DecoderConfig(**layers, **fields)


@pytest.mark.parametrize("run", PUBLISHED)
def test_parameter_counts(run):
    with torch.device("meta"):
        pairs = [
            2 * sum(p.numel() for p in kind(config(run), 768, 16, 100).parameters())
            for kind in (LinearDecoder, ConvDecoder)
        ]
    assert pairs == [LINEAR_PAIRS[run], CONV_PAIRS[run]]


@pytest.mark.parametrize("kind", [LinearDecoder, ConvDecoder])
def test_untrained_output_is_the_mean_color(kind):
    torch.manual_seed(0)
    small = DecoderConfig(layer2=8, layer3=8, layer4=8, inner_dim=8, grid_px=8)
    decoder = kind(small, 16, frames=4, size_px=20).eval()
    pixels = decoder(torch.randn(3, 16))
    assert pixels.shape == (3, 4, 3, 20, 20)
    color = pixels.mean(dim=(0, 1, 3, 4)) * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN)
    torch.testing.assert_close(color, torch.tensor(ACTIVITYNET_MEAN), rtol=0, atol=15.0)
    bias = decoder.output.bias.detach()
    exact = (bias.view(-1, 3, 64)[0, :, 0] if kind is LinearDecoder else bias) * torch.tensor(
        IMAGENET_STD
    ) + torch.tensor(IMAGENET_MEAN)
    torch.testing.assert_close(exact, torch.tensor(ACTIVITYNET_MEAN))


def test_pixels_survive_the_way_there_and_back():
    pixels = torch.randint(0, 256, (2, 5, 6, 3), dtype=torch.uint8)
    scaled = (pixels.float() - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    assert torch.equal(to_pixels(scaled.movedim(-1, -3)), pixels)
