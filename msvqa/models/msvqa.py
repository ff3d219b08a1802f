"""MSVQA: DualVGR's network behind trainable encoders, with decoders that reconstruct clips."""

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from msvqa.data.batch import Batch
from msvqa.models.encoders.encoder import Encoder, keep_statistics
from msvqa.models.encoders.resnet import ResNet
from msvqa.models.encoders.resnext3d import ResNeXt3D
from msvqa.models.layers.network import GraphModel, GraphNetwork
from msvqa.models.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, PixelScale
from msvqa.models.layers.reconstruction import DECODERS, DecoderConfig
from msvqa.models.model import Sizes
from msvqa.models.parts import Parts

# Legend: V videos, Q questions, C clips, F frames per clip, H x W pixels, D hidden size.


class MSVQA(GraphModel):
    """Answers questions from pixels, and reconstructs the pixels from what it reasoned with."""

    class Config(GraphNetwork.Config):
        """Encoders, network and decoders."""

        name: str = "msvqa"
        units: int = Field(default=1, ge=1, le=16)
        """Reasoning units one after another; the published parameter counts fit one."""
        appearance: ResNet.Config = ResNet.Config()
        motion: ResNeXt3D.Config = ResNeXt3D.Config()
        appearance_every: int = Field(default=1, ge=1)
        """Appearance is taken from the first of every so many frames of a clip, motion from all:
        neighbours look alike."""
        decoder: DecoderConfig = DecoderConfig()
        encoder_chunk: int | None = Field(default=None, ge=1)
        """Clips per pass of an encoder; null: all clips of the batch at once. Batch norm in
        training takes its statistics from one pass."""
        checkpoint_activations: bool = False
        """Repeat each pass of the encoders for the gradients instead of keeping its results."""

        @model_validator(mode="after")
        def _chunks_to_recompute(self) -> "MSVQA.Config":
            if self.checkpoint_activations and self.encoder_chunk is None:
                raise ValueError("checkpoint_activations saves memory only with encoder_chunk")
            return self

    config: Config
    optional: ClassVar[tuple[str, ...]] = ("decoder",)

    def __init__(self, config: Config, sizes: Sizes, absent: Collection[str] = ()) -> None:
        super().__init__(config, sizes, absent)
        self.appearance_encoder = ResNet(config.appearance)
        self.motion_encoder = ResNeXt3D(config.motion)
        widths = (self.appearance_encoder.width, self.motion_encoder.width)
        self.network = GraphNetwork(config, sizes, widths)
        self.target_scale = PixelScale(IMAGENET_MEAN, IMAGENET_STD)
        if "decoder" in self.absent:
            return
        build = DECODERS[config.decoder.kind]
        shape = (config.hidden_size, sizes.frames_per_clip, sizes.size_px)
        self.appearance_decoder: nn.Module = build(config.decoder, *shape)
        self.motion_decoder: nn.Module = build(config.decoder, *shape)

    def parts(self) -> Parts:
        """Return encoders as `backbone`, pixel decoders as `decoder` and all else as `rest`."""
        backbone = {"backbone": [self.appearance_encoder, self.motion_encoder]}
        decoder = {"decoder": self.decoders()} if self.decoders() else {}
        return {**backbone, **decoder, "rest": [self]}

    def weight_files(self) -> Mapping[str, Sequence[str]]:
        """Return the weight files of the encoders."""
        encoders = (self.config.appearance, self.config.motion)
        return {"backbone": [encoder.weights for encoder in encoders if encoder.weights]}

    def load_pretrained(self) -> None:
        """Load the weight files of the encoders."""
        self.appearance_encoder.load_pretrained()
        self.motion_encoder.load_pretrained()

    def encode_video(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return appearance and motion of the clips, both (V, C, D), once per video."""
        clips = batch["clips"]
        videos = len(clips)
        flat = rearrange(clips, "v c ... -> (v c) ...")
        motion = self._encode(self.motion_encoder, flat, self.config.encoder_chunk)  # (V·C, width)
        seen = clips[:, :, :: self.config.appearance_every]
        frames = seen.shape[2]
        single = rearrange(seen, "v c f ... -> (v c f) ...")
        chunk = self.config.encoder_chunk
        appearance = self._encode(self.appearance_encoder, single, chunk and chunk * frames)
        return self.network.encode_video(
            rearrange(appearance, "(v c f) d -> v c f d", v=videos, f=frames),
            rearrange(motion, "(v c) d -> v c d", v=videos),
        )

    def reconstruct(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the clips of every question as both decoders see them, (Q, C, F, 3, H, W).

        Values are on ImageNet's scale. The motion decoder's layout in the text is (Q, C, 3, F, H,
        W); the pixels are the same, so one layout serves both.
        """
        reasoning, _ = self.reason(batch)
        return self.decode_pixels(reasoning.appearance, reasoning.motion)

    def decode_pixels(self, appearance: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Return what both decoders make of reasoned clips, (Q, C, D) each, as `reconstruct`."""
        questions = len(appearance)
        appearance = self.appearance_decoder(rearrange(appearance, "q c d -> (q c) d"))
        motion = self.motion_decoder(rearrange(motion, "q c d -> (q c) d"))
        return (
            rearrange(appearance, "(q c) ... -> q c ...", q=questions),
            rearrange(motion, "(q c) ... -> q c ...", q=questions),
        )

    def targets(self, batch: Batch) -> Tensor:
        """Return the clips of every question as `reconstruct` should show them."""
        videos, clips = batch["clips"].shape[:2]
        pixels = rearrange(batch["clips"], "v c f h w n -> (v c f) h w n")
        scaled: Tensor = self.target_scale(pixels, like=self.network.motion.weight)
        scaled = rearrange(scaled, "(v c f) n h w -> v c f n h w", v=videos, c=clips)
        # Scaled before the index: once per video, not per question.
        return scaled[batch["video_index"]]

    def decoders(self) -> list[nn.Module]:
        """Return what only `reconstruct` runs; nothing where the decoders are absent."""
        if "decoder" in self.absent:
            return []
        return [self.appearance_decoder, self.motion_decoder]

    def unused_in_answering(self) -> list[nn.Module]:
        """Return the modules that `answer` never runs."""
        return [*self.decoders(), *self.network.reasoning.unused()]

    def unused_in_reconstruction(self) -> list[nn.Module]:
        """Return the modules that `reconstruct` never runs."""
        return [*self.network.answer_modules(), *self.network.reasoning.unused()]

    def _encode(self, encoder: Encoder, pixels: Tensor, chunk: int | None) -> Tensor:
        """Run an encoder over pieces of the batch, so that memory need not grow with it."""
        parts = torch.split(pixels, chunk or len(pixels))
        if self.config.checkpoint_activations and torch.is_grad_enabled():
            features = [
                checkpoint(
                    encoder, part, use_reentrant=False, context_fn=lambda: keep_statistics(encoder)
                )
                for part in parts
            ]
        else:
            features = [encoder(part) for part in parts]
        return torch.cat(features)
