"""What every processor has in common, and which one a recipe means.

A processor turns a medium into arrays, in one way for stores, streams, rehearsals, single videos
and pages. It is cheap, and travels to the workers: they need nothing else of the recipe.
"""

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from msvqa.data.medium import Medium
from msvqa.data.nvdec_needs import lacking
from msvqa.data.prepared import prepared_location
from msvqa.data.processors import PROCESSORS
from msvqa.data.processors.clock import Clock
from msvqa.data.store import UNSETTLED, USUAL_PRECISION, Arrays, Entry, StoreSpec
from msvqa.errors import VideoError
from msvqa.recipe import Recipe
from msvqa.sections import NamedConfig, resolve
from msvqa.storage import join

if TYPE_CHECKING:
    from msvqa.data.features import FeatureFiles
    from msvqa.data.processors.frozen_encoder import Trial
    from msvqa.data.video import Decoded

logger = logging.getLogger(__name__)
_said: set[str] = set()

Way = Literal["store", "stream", "direct"]
"""How arrays come to a training worker: from a store, decoded by other processes while training
runs, or read by the worker itself."""


class Extractor(ABC):
    """Makes the arrays of one medium after another."""

    timeout_s: float = 60.0
    by_pyav: str = ""
    """Why PyAV read the last medium in place of the back end that was asked for; else empty."""

    @cached_property
    def clock(self) -> Clock:
        """Where the time of `extract` goes: decoding and computing; the rest of it is reading."""
        return Clock()

    def trials(self, medium: Medium) -> "list[Trial]":
        """Try number formats of the frozen encoders on a medium; nothing where there are none.

        Raises:
            VideoError: the medium cannot be read.
        """
        return []

    @abstractmethod
    def arrays(self, medium: Medium) -> Arrays:
        """Return the arrays of a medium.

        Raises:
            VideoError: there are none to be had; its `outcome` says why in one word.
            StorageError: the object store that has its file cannot be read.
        """

    def extract(self, medium: Medium) -> Entry:
        """Return the store entry of a medium; a bad one becomes an entry that says why."""
        facts: dict[str, Any] = {}
        try:
            arrays, outcome = self._made(medium, facts)
        except VideoError as error:
            if error.outcome == "timeout":
                # With more time it is tried again.
                facts["timeout_s"] = self.timeout_s
            return Entry(video_id=medium.id, outcome=error.outcome, error=str(error), facts=facts)
        return Entry(video_id=medium.id, outcome=outcome, facts=facts, arrays=arrays)

    def close(self) -> None:  # noqa: B027
        """Free what the extractor holds."""

    def _noted(self, decoded: "Decoded", medium: Medium) -> "Decoded":
        """Keep in mind who read a medium, and say it once where it was not who should."""
        self.by_pyav = decoded.probe.by_pyav
        say_who_read(medium, self.by_pyav)
        return decoded

    def _made(self, medium: Medium, facts: dict[str, Any]) -> tuple[Arrays, str]:
        """Return arrays and outcome of a medium; note what is known of its file in `facts`."""
        return self.arrays(medium), "ok"


class Processor(ABC):
    """Turns media into arrays, and says where these are kept."""

    class Config(NamedConfig):
        """Fields that every processor has."""

    reads_files = True
    """Whether the files of the media are needed."""
    timeout_s: float = 60.0
    """Longest time for one medium."""
    way: Way = "store"

    def __init__(self, config: NamedConfig, section: str = "processor", seed: int = 0) -> None:
        """Take the section of a recipe.

        Args:
            config: the section.
            section: its key, for messages.
            seed: seed of the recipe.
        """
        # The class of a section is made when a recipe is read and cannot travel; this one can.
        self.config: Any = type(self).Config(**dict(config))
        self.section, self.seed = section, seed
        self.precisions: Mapping[str, str] = {}
        """Number formats of frozen encoders that a store has settled, by part."""
        self._may_compile = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config!r})"

    @abstractmethod
    def sizes(self) -> dict[str, int | None]:
        """Return what a model must know of the arrays."""

    @abstractmethod
    def spec(self) -> StoreSpec:
        """Return what a store of the arrays holds.

        Raises:
            StoreError: a file that they are made with is absent.
        """

    @abstractmethod
    def extractor(self) -> Extractor:
        """Return what makes the arrays."""

    @abstractmethod
    def folder_name(self) -> str:
        """Return the name of the store inside the prepared folder."""

    def settled(self, precisions: Mapping[str, str]) -> "Processor":
        """Return the processor with number formats where its section leaves them open."""
        settled = copy.copy(self)
        settled.precisions = dict(precisions)
        return settled

    def uncompiled(self) -> "Processor":
        """Return the processor for a few media: to compile its encoders would take longer."""
        plain = copy.copy(self)
        plain._may_compile = False
        return plain

    @property
    def compiles(self) -> bool:
        """Whether frozen encoders are compiled when they first encode."""
        return bool(getattr(self.config, "compile", False)) and self._may_compile

    def precision_of(self, part: str) -> str:
        """Return the number format of a frozen encoder; `auto` where it is not settled yet."""
        named: str = getattr(self.config, "precision", USUAL_PRECISION)
        return self.precisions.get(part, named) if named == UNSETTLED else named

    def location(self, prepared: str) -> str:
        """Return the folder of the store: the one that is named, else in the prepared folder."""
        named: str | None = getattr(self.config, "store", None)
        return named if named is not None else join(prepared, self.folder_name())

    def arrays(self, media: Iterable[Medium]) -> Iterator[Arrays]:
        """Yield the arrays of media, made here and now.

        Raises:
            VideoError: a medium has none.
            StorageError: the object store that has its file cannot be read.
        """
        extractor = self.extractor()
        try:
            for medium in media:
                yield extractor.arrays(medium)
        finally:
            extractor.close()

    def draw(self, arrays: Arrays, generator: np.random.Generator | None) -> Arrays:
        """Return what a batch holds of a medium's arrays.

        Args:
            arrays: as the extractor made them.
            generator: random numbers of a training step; None: nothing is random.
        """
        return arrays

    @property
    def decoder(self) -> str:
        """Back end that reads videos; empty where none are read."""
        named: str = getattr(self.config, "decoder", "")
        return named

    @property
    def decoder_key(self) -> str:
        """Key of the recipe that names the back end."""
        return f"{self.section}.decoder"

    def read_by(self, decoder: str) -> "Processor":
        """Return the processor with another back end, for one that reads videos."""
        other = copy.copy(self)
        other.config = self.config.model_copy(update={"decoder": decoder})
        return other

    def files(self) -> "FeatureFiles | None":
        """Return the files of another program that the arrays are copied from, if there are any."""
        return None

    def encoders(self) -> Mapping[str, tuple[NamedConfig, int]]:
        """Return the frozen encoders with the widths that the section states, by their keys."""
        return {}

    @property
    def resides_on_device(self) -> bool:
        """Whether a GPU holds the arrays of a whole split."""
        return False

    @property
    def pictures(self) -> "Processor | None":
        """The processor that makes pixels for people to look at: this one, if it makes some."""
        return None

    def shown(self, arrays: Arrays) -> np.ndarray:
        """Return the pixels of a medium, uint8 (C, F, H, W, 3): clips of frames."""
        raise NotImplementedError(f"{type(self).__name__} makes no pixels")


def say_who_read(medium: Medium, by_pyav: str) -> None:
    """Warn that PyAV read a medium in place of another back end; of each reason once."""
    if by_pyav and by_pyav not in _said:
        _said.add(by_pyav)
        logger.warning(
            "%s is read by pyav, and not by the decoder that was asked for: %s; more media of "
            "which this is true are not named", medium.path, by_pyav,
        )  # fmt: skip


def decoding_facts(decoded: "Decoded") -> dict[str, Any]:
    """Return the counts of the decoder, and why another one was needed, where one was."""
    found = decoded.probe
    instead = {"by_pyav": found.by_pyav} if found.by_pyav else {}
    return instead | {
        "num_frames": found.num_frames,
        "header_frames": found.header_frames,
        "bad_packets": found.bad_packets,
        "corrupt_frames": found.corrupt_frames,
        "stream": found.stream,
        "problem": found.problem,
    }


def processor_of(recipe: Recipe) -> Processor:
    """Return the processor that a recipe names; else `features` where it has them, else `clips`."""
    if recipe.processor is not None:
        kind: type[Processor] = resolve(recipe.processor.name, PROCESSORS, "processor")
        return kind(recipe.processor, seed=recipe.seed)
    if recipe.features is not None:
        kind = resolve("features", PROCESSORS, "processor")
        config = kind.Config(name="features", **{**dict(recipe.features), "clips": recipe.clips})
        return kind(config, "features", recipe.seed)
    kind = resolve("clips", PROCESSORS, "processor")
    return kind(kind.Config(name="clips", **dict(recipe.clips)), "clips", recipe.seed)


def processor_here(recipe: Recipe) -> Processor:
    """Return the processor of a recipe for a few media, which this process reads itself.

    A model that was trained where there is a GPU also answers where there is none: PyAV shows the
    same frames but for rounding.
    """
    processor = processor_of(recipe)
    problem = lacking() if processor.decoder == "nvdec" else ""
    if not problem:
        return processor
    logger.warning("videos are read by pyav, not by nvdec as in training: %s", problem)
    return processor.read_by("pyav")


def processors_of(recipe: Recipe) -> list[Processor]:
    """Return the processor of a recipe, and those that single stages have of their own."""
    own = [
        resolve(stage.processor.name, PROCESSORS, "processor")(
            stage.processor, f"stages.{number}.processor", recipe.seed
        )
        for number, stage in enumerate(recipe.stages)
        if stage.processor is not None
    ]
    return [processor_of(recipe), *own]


def store_spec(recipe: Recipe) -> StoreSpec:
    """Return what the store of a recipe holds."""
    return processor_of(recipe).spec()


def store_location(recipe: Recipe) -> str:
    """Return the folder of a recipe's store."""
    return processor_of(recipe).location(prepared_location(recipe.data))
