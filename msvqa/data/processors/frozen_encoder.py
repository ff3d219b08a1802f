"""Encoders that learn nothing: pixels go in, and what a store keeps comes out."""

import zlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msvqa.data.finite import as_stored
from msvqa.errors import StoreError
from msvqa.files import hash_file
from msvqa.models.encoders import ENCODERS
from msvqa.sections import NamedConfig, resolve

if TYPE_CHECKING:
    from msvqa.models.encoders.encoder import Encoder

FRAMES_PER_PASS = 32


class FrozenEncoder:
    """An encoder that is built when it first encodes."""

    def __init__(self, part: str, config: NamedConfig, seed: int) -> None:
        """Take what it is built of.

        Args:
            part: what it makes, for messages; random encoders of two parts differ.
            config: its section.
            seed: of an encoder without weights.
        """
        self._part, self._config, self._seed = part, config, seed

    def encode(self, pixels: np.ndarray, per_pass: int, dtype: str) -> np.ndarray:
        """Return features (N, D) in the type of a store.

        Args:
            pixels: uint8 (N, ...) frames or clips.
            per_pass: how many of them go through the network at once.
            dtype: `float16` or `float32`.

        Raises:
            VideoError: a feature is no finite number of this type.
        """
        import torch

        encoder = self._encoder
        device = next(encoder.parameters()).device
        with torch.inference_mode():
            passes = torch.split(torch.from_numpy(pixels), per_pass)
            found = [encoder(batch.to(device)).float().cpu() for batch in passes]
        features = torch.cat(found).numpy()
        return as_stored(features, dtype, f"{self._part} features of the encoder")

    @cached_property
    def _encoder(self) -> "Encoder":
        return open_encoder(self._part, self._config, self._seed)


def open_encoder(part: str, config: NamedConfig, seed: int) -> "Encoder":
    """Return an encoder with its weights, on a GPU where there is one."""
    import torch

    encoder_class = resolve(config.name, ENCODERS, "encoder")
    # Without weights the encoder is random: the same in every worker, another for each part.
    torch.manual_seed(seed + zlib.crc32(part.encode()))
    encoder: Encoder = encoder_class(config).eval()
    encoder.load_pretrained()
    encoder.to(device="cuda" if torch.cuda.is_available() else "cpu")
    for kind, layout in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        for weight in (p for p in encoder.parameters() if p.ndim == kind):
            weight.data = weight.data.to(memory_format=layout)
    return encoder


def encoder_identity(config: NamedConfig, seed: int) -> dict[str, Any]:
    """Return everything that the features of an encoder depend on.

    Raises:
        StoreError: its file of weights is absent.
    """
    identity: dict[str, Any] = config.model_dump(mode="json")
    weights = identity.pop("weights", None)
    if weights is None:
        return {**identity, "random_weights_of_seed": seed}
    if not Path(weights).is_file():
        raise StoreError(f"there is no file of weights {weights}")
    # The file's content, since it may have moved; and hashing takes a second at most.
    return {**identity, "weights_sha256": hash_file(Path(weights))}
