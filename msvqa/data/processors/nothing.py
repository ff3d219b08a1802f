"""Nothing: for examples that are text alone."""

from msvqa.data.medium import Medium
from msvqa.data.processors.processor import Extractor, Processor, Way
from msvqa.data.store import Arrays, StoreSpec
from msvqa.sections import NamedConfig


class Nothing(Processor):
    """Reads no media: batches hold what the examples give."""

    class Config(NamedConfig):
        """Nothing to be said."""

        name: str = "none"

    reads_files = False
    way: Way = "direct"

    def sizes(self) -> dict[str, int | None]:
        """Return no sizes."""
        return {}

    def spec(self) -> StoreSpec:
        """Return that there are no arrays."""
        return StoreSpec(kind="none", arrays={})

    def folder_name(self) -> str:
        """Return the name of a folder that nobody makes."""
        return "none"

    def extractor(self) -> Extractor:
        """Return what makes nothing."""
        return NoExtractor()


class NoExtractor(Extractor):
    """Makes no arrays."""

    def arrays(self, medium: Medium) -> Arrays:
        """Return no arrays."""
        return {}
