"""Data sets of questions about videos."""

from abc import abstractmethod
from typing import ClassVar

from msvqa.data.annotated import Annotated
from msvqa.data.annotations import Annotations
from msvqa.data.dataset import Dataset
from msvqa.data.video_files import VideoFile

OTHER_TYPE = "other"


class QuestionSet(Dataset):
    """Questions of all splits, and the places of their videos."""

    class Config(Dataset.Config):
        """Fields of the `data` section of a recipe."""

    question_types: ClassVar[tuple[str, ...]] = ("what", "who", "how", "when", "where")
    """Kinds of questions in the order of reports."""

    @abstractmethod
    def read(self) -> Annotations:
        """Read and check all annotations.

        Raises:
            DataError: a file is absent or cannot be read at all.
        """

    @abstractmethod
    def find_video(self, video_id: str, split: str) -> VideoFile:
        """Return where a video is."""

    def question_type(self, question: str) -> str:
        """Return the kind of a question: its first word, or "other"."""
        first = question.split(maxsplit=1)[0].lower() if question.strip() else ""
        return first if first in self.question_types else OTHER_TYPE

    def annotate(self) -> Annotated:
        """Read all annotations and find the video of each."""
        from msvqa.data.problems import annotate

        return annotate(self)
