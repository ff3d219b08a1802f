"""The sections of a recipe about data: which data set, and how it is dealt to folds."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from msvqa.data import DATASETS
from msvqa.sections import Config, NamedConfig, Role
from msvqa.storage import Location, WordVectorsFile

DATA_SET = Role("data set", DATASETS)


def _number_as_text(value: object) -> object:
    return str(value) if type(value) is int else value


VideoId = Annotated[str, BeforeValidator(_number_as_text)]
"""The id of a video; in YAML one that is a number needs no quotation marks."""


class DataConfig(NamedConfig):
    """Fields that every data set has."""

    names_part: ClassVar[tuple[str, ...]] = ()
    """Fields that say which part of the root is meant: each part is prepared by itself."""

    root: Location
    """Folder with the videos and annotations."""
    prepared: Location | None = None
    """Folder for the tables and word lists; by default `prepared/NAME-<id of root>`."""
    allow_missing: bool = False
    """Go on when videos of the annotations are missing or unreadable."""
    follow_links: bool = False
    """Follow links inside the data root that lead out of it, as to another disk."""
    shared_videos: tuple[VideoId, ...] = ()
    """Videos that may be in more than one split, by id; `train+val` allows all these two share."""
    equal_videos: Literal["warn", "refuse"] = "warn"
    """What becomes of files with other names that are the same byte for byte, in two splits. Of
    published data sets nobody can choose the splits anew; what is said names the videos."""
    answer_top: int = Field(default=4000, ge=1)
    """Keep this many of the most frequent training answers as classes."""
    word_vectors: WordVectorsFile | None = None
    """Text file of GloVe, word2vec or fastText, plain, .gz or .zip; random vectors where none is
    given."""
    word_size: int = Field(default=300, ge=1)
    """Width of the word vectors."""


class FoldsConfig(Config):
    """Cross-validation: the videos of train and val together are dealt to so many parts."""

    count: int = Field(default=5, ge=2, le=100)
    index: int = Field(ge=0)
    """The part that takes the place of val; the others are train. test stays as it is."""
    by: Literal["video", "example"] = "video"
    """`example`: the examples are dealt whatever videos they are about, as in the similarity
    system of team 618; then most videos of val are in train as well."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "FoldsConfig":
        if self.index >= self.count:
            raise ValueError(f"index {self.index} is not below count {self.count}")
        return self
