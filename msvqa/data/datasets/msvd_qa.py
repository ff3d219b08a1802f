"""MSVD-QA: one-word answers to questions about short clips, in the published layout.

    train_qa.json  val_qa.json  test_qa.json     lists of {"answer", "id", "question", "video_id"}
    youtube_mapping.txt                          lines "<file name without ending> vid<video_id>"
    video/ or YouTubeClips/                      the clips, .avi or another video format

Paper: Xu et al., "Video Question Answering via Gradually Refined Attention over Appearance and
Motion", ACM Multimedia 2017.
"""

import re
from functools import cached_property
from typing import Any

from msvqa.data.annotations import Annotations, Row, read_elements, several
from msvqa.data.pieces import PiecesConfig, tokenizer_files, unused_fields
from msvqa.data.question_set import QuestionSet
from msvqa.data.root import SourceFile
from msvqa.data.video_files import VideoFile
from msvqa.errors import DataError
from msvqa.text_files import read_lines

MAPPING = "youtube_mapping.txt"
FOLDERS = ("video", "YouTubeClips")
_MAPPING_LINE = re.compile(r"(?P<stem>\S(?:.*\S)?)[ \t]+vid(?P<video_id>\d{1,18})")


class MSVDQA(QuestionSet):
    """Questions about the clips of the Microsoft Research Video Description corpus."""

    class Config(PiecesConfig, QuestionSet.Config):
        """Fields of the `data` section of a recipe."""

    KEYS: dict[str, tuple[type, ...]] = {
        "answer": (str,),
        "id": (int,),
        "question": (str,),
        "video_id": (int,),
    }

    def source_names(self) -> list[str]:
        """Return the names of the question files and of the mapping of ids to file names."""
        return [*map(question_file, self.splits), MAPPING]

    def source_files(self) -> list[SourceFile]:
        """Return the files of these names, and those of the vocabulary of pieces."""
        named = [self.root.source(name) for name in self.source_names()]
        return [*named, *tokenizer_files(self.config)]

    @property
    def unused(self) -> frozenset[str]:
        """Fields about pieces of words, where questions become words."""
        return unused_fields(self.config)

    def read(self) -> Annotations:
        """Read the questions of all splits."""
        annotations = Annotations()
        for split in self.splits:
            file = self.root.source(question_file(split))

            def row_of(number: int, element: dict[str, Any], split: str = split) -> Row:
                return self._row(split, number, element)

            read_elements(file, self.KEYS, row_of, annotations)
        annotations.refuse_repeated_ids()
        return annotations

    def find_video(self, video_id: str, split: str) -> VideoFile:
        """Return the clip that the mapping names."""
        stem = self._stems.get(video_id)
        if stem is None:
            return VideoFile("", f"not in {MAPPING}", is_known=False)
        return self.videos.find(stem, FOLDERS)

    def _row(self, split: str, number: int, element: dict[str, Any]) -> Row:
        return Row(
            split=split,
            video_id=str(element["video_id"]),
            question_id=element["id"],
            question=element["question"],
            answer=element["answer"].strip(),
            type=self.question_type(element["question"]),
            source=question_file(split),
            number=number,
        )

    @cached_property
    def _stems(self) -> dict[str, str]:
        """File names without ending, by video id."""
        file = self.root.source(MAPPING)
        stems: dict[str, str] = {}
        problems = []
        for number, line in enumerate(read_lines(file.path, file), start=1):
            match = _MAPPING_LINE.fullmatch(line.strip())
            if match:
                video_id = str(int(match["video_id"]))
                if stems.setdefault(video_id, match["stem"]) != match["stem"]:
                    problems.append(f"line {number}: vid{video_id} already has another file name")
            elif line.strip():
                problems.append(
                    f"line {number}: {line.strip()[:60]!r} is not '<file name> vid<number>'"
                )
        if problems:
            raise DataError(f"{file}: {len(problems)} lines cannot be used\n{several(problems)}")
        return stems


def question_file(split: str) -> str:
    """Return the name of the annotation file of a split."""
    return f"{split}_qa.json"
