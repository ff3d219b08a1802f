"""A model with a part that comes from a file of the user, named in recipes by its path."""

from typing import ClassVar

from msvqa.models.msvqa import MSVQA


class Borrowing(MSVQA):
    """MSVQA whose encoders are external where the recipe names files for both of them."""

    external: ClassVar[tuple[str, ...]] = ("backbone",)

    def load_external(self, part: str) -> None:
        """Load both encoders."""
        self.load_pretrained()

    def depth_of(self, name: str) -> int | None:
        """Return the number of the residual layer."""
        layer = next((part for part in name.split(".") if part.startswith("layer")), "")
        return int(layer[5:]) if "_encoder." in name and layer else None
