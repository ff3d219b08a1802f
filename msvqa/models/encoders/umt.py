"""UMT's video transformer over frames or clips, as an encoder that features are made with.

Li et al., "Unmasked Teacher: Towards Training-Efficient Video Foundation Models", ICCV 2023,
https://arxiv.org/abs/2303.16058
"""

from torch import Tensor

from msvqa.errors import RecipeError
from msvqa.models.encoders.encoder import Encoder
from msvqa.models.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, PixelScale
from msvqa.models.layers.video_transformer import (
    VideoTransformer,
    VideoTransformerConfig,
    load_published,
)

# Legend: N frames or clips, F frames of a clip, n tokens, D width, H x W pixels.

FRAMES, SIZE_PX = 8, 224
"""Of the clips of the first stage."""


class UMTEncoder(Encoder):
    """One vector per clip, or per frame as an image: the mean of all tokens, normed.

    Widths: base 768, large 1024.
    """

    class Config(Encoder.Config):
        """Size of the transformer, and of the clips that its weights know.

        `weights` is a published file of either stage, or `weights.safetensors` of a checkpoint of a
        model `umt`.
        """

        name: str = "umt"
        video: VideoTransformerConfig = VideoTransformerConfig()
        """`trained_frames` and `trained_px` say which clips the weights were trained on, by default
        8 frames of 224 pixels: files of the second stage know 4 frames."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, PixelScale(IMAGENET_MEAN, IMAGENET_STD))
        self.video = VideoTransformer(config.video, FRAMES, SIZE_PX)
        self.width = config.video.width

    @property
    def first_weight(self) -> Tensor:
        """The weights of the map of patches."""
        return self.video.patch_embed.proj.weight

    def feature_map(self, scaled: Tensor) -> Tensor:
        """Return the tokens (N, D, n) of frames (N, 3, H, W) or clips (N, 3, F, H, W)."""
        patch, size = self.video.config.patch_px, scaled.shape[-2:]
        if any(side % patch for side in size):
            raise RecipeError(
                [
                    f"encoder umt: frames of {size[0]} x {size[1]} px are no whole number of "
                    f"patches of {patch} px: choose another size in pixels"
                ]
            )
        clips = scaled if scaled.ndim == 5 else scaled.unsqueeze(2)
        tokens: Tensor = self.video(clips)
        return tokens.transpose(1, 2)

    def load_pretrained(self) -> None:
        """Load the weights that the config names.

        Raises:
            WeightsError: the file does not fit, with all names that differ.
        """
        if self.config.weights:
            load_published(self.video, self.config.weights)
