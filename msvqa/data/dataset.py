"""Data sets: annotations with video files, in one published layout each."""

from abc import ABC, abstractmethod
from typing import ClassVar

from msvqa.data import DATASETS
from msvqa.data.annotated import Annotated
from msvqa.data.root import SourceFile, open_root
from msvqa.data.video_files import VideoFolders
from msvqa.errors import DataError
from msvqa.files import hash_file
from msvqa.recipe import DataConfig
from msvqa.sections import resolve


class Dataset(ABC):
    """Annotations of all splits and the places of the videos, in one published layout."""

    class Config(DataConfig):
        """Fields of the `data` section of a recipe."""

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    is_for_training: ClassVar[bool] = True
    """Whether there must be examples to learn from; a benchmark has none."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.root = open_root(config.root, follow_links=config.follow_links)
        self.videos = VideoFolders(self.root)

    @abstractmethod
    def source_files(self) -> list[SourceFile]:
        """Return the files that annotations come from.

        Raises:
            DataError: one is absent.
        """

    @abstractmethod
    def annotate(self) -> Annotated:
        """Read and check all annotations, and find the file of every medium.

        Raises:
            DataError: a file of annotations is absent or cannot be read at all.
        """

    @property
    def unused(self) -> frozenset[str]:
        """Fields of the section that leave what is prepared as it is."""
        return frozenset()

    def generate(self) -> None:  # noqa: B027 - nothing to do for most data sets
        """Write the files of the data set where they are absent; only generated sets do."""

    def fingerprint(self) -> dict[str, str]:
        """Return the SHA-256 of every source file by name."""
        return {file.name: hash_file(file.path) for file in self.source_files()}


def open_dataset(config: DataConfig) -> Dataset:
    """Return the data set that a section names; a generated one writes its files first.

    Raises:
        DataError, StorageError: no such data set, or its folder is absent.
    """
    try:
        kind = resolve(config.name, DATASETS, "data set")
    except ValueError as error:
        raise DataError(str(error)) from None
    if not isinstance(config, kind.Config):
        config = kind.Config.model_validate(config.model_dump())
    dataset: Dataset = kind(config)
    dataset.generate()
    dataset.root.check()
    return dataset
