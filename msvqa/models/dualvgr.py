"""DualVGR: dual visual graph reasoning over extracted features.

Wang, Bao and Xu, IEEE Transactions on Multimedia 2021, https://doi.org/10.1109/TMM.2021.3097171
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from msvqa.data.batch import Batch
from msvqa.errors import RecipeError, WeightsError
from msvqa.models.layers.network import GraphModel, GraphNetwork
from msvqa.models.model import Sizes
from msvqa.models.reference import count, from_reference
from msvqa.models.weight_files import read_weights
from msvqa.storage import WeightsFile

# Legend: V videos, Q questions, C clips, D hidden size.


class DualVGR(GraphModel):
    """Answers questions from frame features and clip features."""

    class Config(GraphNetwork.Config):
        """Fields of the network, with the published sizes."""

        name: str = "dualvgr"
        weights: WeightsFile | None = None
        """Checkpoint of the reference program to start from."""

    config: Config

    def __init__(self, config: Config, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        if sizes.get("appearance_width") is None or sizes.get("motion_width") is None:
            raise RecipeError(
                ["model dualvgr reads features: add a `features` section, or use model msvqa"]
            )
        widths = (sizes.appearance_width, sizes.motion_width)
        self.network = GraphNetwork(config, sizes, widths)

    def encode_video(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return appearance and motion of the clips, both (V, C, D), once per video."""
        return self.network.encode_video(batch["appearance"], batch["motion"])

    def load_pretrained(self) -> None:
        """Load the reference's checkpoint that the config names."""
        if self.config.weights:
            self.load_reference(read_weights(self.config.weights), self.config.weights)

    def load_reference(self, state: Mapping[str, Tensor], source: str = "state dict") -> None:
        """Take over weights under the reference's names.

        Raises:
            WeightsError: lists missing names, unknown names and wrong shapes.
        """
        own = self.network.state_dict()
        renamed = from_reference(state, own, self.config.heads, source)
        self.network.load_state_dict(own | renamed)


def load_reference(
    path: str | Path, *, num_clips: int = 8, frames_per_clip: int = 16, graph_layers: int = 1
) -> DualVGR:
    """Return the model in a checkpoint of the reference program, in eval mode.

    All widths are read from the shapes of the weights. Number and length of clips are not in them.

    Raises:
        WeightsError: not such a checkpoint; lists missing names, unknown names and wrong shapes.
    """
    state = read_weights(path)
    try:
        words = state["linguistic_input_unit.encoder_embed.weight"]
        motion = state["visual_motion_input_unit.weight"]
        frames = state["visual_appearance_input_unit.encoder.weight_ih_l0"]
        answers = state["output_unit.classifier.5.weight"]
    except KeyError as error:
        raise WeightsError(f"{path} is not a DualVGR checkpoint: it has no {error}") from None
    config = DualVGR.Config(
        hidden_size=motion.shape[0],
        units=count(state, r"queryAttn\.(\d+)\."),
        heads=count(state, r"acGCN\.0\.attention_(\d+)\."),
        graph_layers=graph_layers,
        reference_graph_layers=graph_layers > 1,
    )
    sizes = Sizes(
        vocabulary=words.shape[0],
        answers=answers.shape[0],
        num_clips=num_clips,
        frames_per_clip=frames_per_clip,
        size_px=224,
        appearance_width=frames.shape[1],
        motion_width=motion.shape[1],
        word_size=words.shape[1],
    )
    model = DualVGR(config, sizes).to(torch.promote_types(motion.dtype, torch.float32))
    model.load_reference(state, str(path))
    return model.eval()
