"""DualVGR: dual visual graph reasoning over extracted features.

Wang, Bao and Xu, IEEE Transactions on Multimedia 2021, https://doi.org/10.1109/TMM.2021.3097171
"""

from torch import Tensor

from msvqa.data.batch import Batch
from msvqa.errors import RecipeError
from msvqa.models.layers.network import GraphModel, GraphNetwork
from msvqa.models.model import Sizes
from msvqa.recipe import Location

# Legend: V videos, Q questions, C clips, D hidden size.


class DualVGR(GraphModel):
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
