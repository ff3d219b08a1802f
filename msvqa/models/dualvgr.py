"""DualVGR: dual visual graph reasoning over extracted features.

Wang, Bao and Xu, IEEE Transactions on Multimedia 2021, https://doi.org/10.1109/TMM.2021.3097171
"""

import numpy as np
from torch import Tensor, nn

from msvqa.data.batch import Batch
from msvqa.errors import RecipeError
from msvqa.models.layers.network import GraphNetwork, Reasoned
from msvqa.models.model import Model, Sizes
from msvqa.recipe import Location

# Legend: V videos, Q questions, C clips, D hidden size.


class DualVGR(Model):
    """Answers questions from frame features and clip features."""

    class Config(GraphNetwork.Config):
        """Fields of the network, with the published sizes."""

        name: str = "dualvgr"
        weights: Location | None = None
        """Checkpoint of the reference program to start from."""

    def __init__(self, config: Config, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        if sizes.appearance_width is None or sizes.motion_width is None:
            raise RecipeError(
                ["model dualvgr reads features: add a `features` section, or use model msvqa"]
            )
        widths = (sizes.appearance_width, sizes.motion_width)
        self.network = GraphNetwork(config, sizes, widths)

    def encode_video(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return appearance and motion of the clips, both (V, C, D), once per video."""
        return self.network.encode_video(batch["appearance"], batch["motion"])

    def answer(self, batch: Batch) -> Reasoned:
        """Return the logits for every question of the batch."""
        reasoning, words = self.network.reason(*self.encode_video(batch), batch)
        return self.network.decode_answer(reasoning, words, batch)

    def unused_in_answering(self) -> list[nn.Module]:
        """Return the modules that `answer` never runs."""
        return self.network.reasoning.unused()

    def load_word_vectors(self, vectors: np.ndarray) -> None:
        """Start the word embedding from a (vocabulary, word_size) matrix."""
        self.network.load_word_vectors(vectors)
