"""Encoders that learn nothing: pixels go in, and what a store keeps comes out."""

import math
import time
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msvqa.compilation import compile_forward
from msvqa.data.finite import as_stored
from msvqa.data.store import with_precision
from msvqa.errors import StoreError
from msvqa.files import hash_file
from msvqa.models.encoders import ENCODERS
from msvqa.sections import NamedConfig, resolve

if TYPE_CHECKING:
    from torch import Tensor

    from msvqa.models.encoders.encoder import Encoder

FRAMES_PER_PASS = 32
FORMATS = ("float32", "bf16")
TRIED_ROUNDS = 3
LEAST_COSINE, LEAST_GAIN = 0.999, 1.1
"""What bf16 has to keep of each feature vector, and to save of the time: the rest is noise."""


@dataclass(frozen=True)
class Trial:
    """What an encoder makes of the same pixels in float32 and in bf16."""

    part: str
    """Key of the encoder in the section of its processor"""
    cosine: float
    """Smallest cosine of a vector in bf16 to the one in float32; not a number: nothing was tried"""
    gain: float
    """Time that float32 takes over the time of bf16"""

    @property
    def problem(self) -> str:
        """Why float32 is the better choice; empty where bf16 is."""
        if math.isnan(self.gain):
            return "nothing could be read to try bf16 on"
        if not self.cosine >= LEAST_COSINE:
            return f"features in bf16 have a cosine of {self.cosine:.4f} to those in float32"
        if not self.gain >= LEAST_GAIN:
            return f"bf16 is {self.gain:.2f} times as fast as float32 here"
        return ""

    @property
    def precision(self) -> str:
        """The better choice."""
        return "float32" if self.problem else "bf16"


class FrozenEncoder:
    """An encoder that is built when it first encodes."""

    def __init__(
        self,
        part: str,
        config: NamedConfig,
        seed: int,
        precision: str = "float32",
        compiles: bool = False,
    ) -> None:
        """Take what it is built of.

        Args:
            part: what it makes, for messages; random encoders of two parts differ.
            config: its section.
            seed: of an encoder without weights.
            precision: number format of its operators; `auto`, where no store has settled it, is
                float32.
            compiles: whether it is compiled when it first encodes.
        """
        self._part, self._config, self._seed = part, config, seed
        self._precision, self._compiles = precision, compiles

    def encode(self, pixels: np.ndarray, per_pass: int, dtype: str) -> np.ndarray:
        """Return features (N, D) in the type of a store.

        Args:
            pixels: uint8 (N, ...) frames or clips.
            per_pass: how many of them go through the network at once.
            dtype: `float16` or `float32`.

        Raises:
            VideoError: a feature is no finite number of this type.
        """
        features = self._features(pixels, per_pass, self._precision).numpy()
        return as_stored(features, dtype, f"{self._part} features of the encoder")

    def trial(self, part: str, pixels: np.ndarray, per_pass: int) -> Trial:
        """Encode in both formats by turns, and compare features and time.

        Args:
            part: name of the encoder in the result.
            pixels: uint8 (N, ...) frames or clips; some that are far from each other are tried.
            per_pass: how many of them go through the network at once: on a GPU as many are tried,
                since it is slow with few, else an eighth.
        """
        import torch

        on_gpu = self._device.type == "cuda"
        most = per_pass if on_gpu else max(1, per_pass // 8)
        tried = pixels[np.linspace(0, len(pixels) - 1, min(most, len(pixels))).astype(int)]
        # Processor time, which others on the machine change little; that of a GPU is waited for.
        clock = time.perf_counter if on_gpu else time.process_time
        found: dict[str, Tensor] = {}
        times_s: dict[str, list[float]] = {precision: [] for precision in FORMATS}
        for _ in range(1 + TRIED_ROUNDS):
            for precision in FORMATS:
                start = clock()
                found[precision] = self._features(tried, per_pass, precision)
                times_s[precision].append(clock() - start)
        full, brief = (found[precision].double() for precision in FORMATS)
        cosine = float(torch.nn.functional.cosine_similarity(full, brief, dim=1).min())
        # The first round has warmed up.
        usual_s, brief_s = (min(times_s[precision][1:]) for precision in FORMATS)
        return Trial(part, cosine, usual_s / brief_s)

    def _features(self, pixels: np.ndarray, per_pass: int, precision: str) -> "Tensor":
        """Return features (N, D), float32 on the host."""
        import torch

        encoder, device = self._encoder, self._device
        in_bf16 = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
        found = torch.from_numpy(pixels)
        if device.type == "cuda":
            # A GPU reads such memory by itself: the host queues all passes, and waits once.
            found = found.pin_memory()
        with torch.inference_mode(), in_bf16:
            passes = (part.to(device, non_blocking=True) for part in torch.split(found, per_pass))
            return torch.cat([encoder(part).float() for part in passes]).cpu()

    @property
    def _device(self) -> Any:
        return next(self._encoder.parameters()).device

    @cached_property
    def _encoder(self) -> "Encoder":
        encoder = open_frozen(self._part, self._config, self._seed)
        if self._compiles:
            compile_forward(encoder, f"the encoder of {self._part} features")
        return encoder


def open_encoder(part: str, config: NamedConfig, seed: int) -> "Encoder":
    """Return an encoder with its weights, on a GPU where there is one."""
    encoder = _opened(part, config, seed)
    encoder.lay_out()
    return encoder


def open_frozen(part: str, config: NamedConfig, seed: int) -> "Encoder":
    """Return an encoder that nothing trains any more: `open_encoder` with fewer operations."""
    encoder = _opened(part, config, seed)
    encoder.requires_grad_(False)
    encoder.fold_batch_norm()
    encoder.lay_out()
    return encoder


def _opened(part: str, config: NamedConfig, seed: int) -> "Encoder":
    import torch

    encoder_class = resolve(config.name, ENCODERS, "encoder")
    # Without weights the encoder is random: the same in every worker, another for each part.
    torch.manual_seed(seed + zlib.crc32(part.encode()))
    encoder: Encoder = encoder_class(config).eval()
    encoder.load_pretrained()
    encoder.to(device="cuda" if torch.cuda.is_available() else "cpu")
    return encoder


def encoder_identity(
    config: NamedConfig, seed: int, precision: str, *, compiles: bool = False
) -> dict[str, Any]:
    """Return everything that the features of an encoder depend on.

    Args:
        config: its section.
        seed: of an encoder without weights.
        precision: `float32`, `bf16`, or `auto` where that is not settled yet.
        compiles: whether it is compiled, which changes the last digits.

    Raises:
        StoreError: its file of weights is absent.
    """
    identity: dict[str, Any] = with_precision(config.model_dump(mode="json"), precision)
    weights = identity.pop("weights", None)
    if compiles:
        # Stores of encoders that are not have no such entry.
        identity["compile"] = True
    if weights is None:
        return {**identity, "random_weights_of_seed": seed}
    if not Path(weights).is_file():
        raise StoreError(f"there is no file of weights {weights}")
    # The file's content, since it may have moved; and hashing takes a second at most.
    return {**identity, "weights_sha256": hash_file(Path(weights))}
