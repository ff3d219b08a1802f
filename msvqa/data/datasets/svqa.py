"""SVQA: questions composed by programs about synthetic videos.

    train_qa.json  val_qa.json  test_qa.json     lists of {"id", "question", "ans", "program"};
                                                 "id" is the video
    video/<id>.mp4 or Videos/<id>.mp4            the videos

A question's kind is the last function of its program. Several questions have the same "id", so they
are numbered by their position in the file.
Paper: Song et al., "Explore Multi-Step Reasoning in Video Question Answering", ACM Multimedia 2018.
"""

from typing import Any

from msvqa.data.annotations import Row
from msvqa.data.datasets.msvd_qa import MSVDQA, question_file
from msvqa.data.question_set import OTHER_TYPE
from msvqa.data.video_files import VideoFile

FOLDERS = ("video", "videos", "Videos")


class SVQA(MSVDQA):
    """Questions about attributes, counts and comparisons of moving shapes."""

    # The published kinds are functions of programs; they are listed as the annotations name them.
    question_types = ()
    KEYS = {
        "id": (int, str),
        "question": (str,),
        "ans": (str, int, bool),
        "program": (list,),
    }

    def source_names(self) -> list[str]:
        """Return the names of the question files."""
        return [*map(question_file, self.splits)]

    def find_video(self, video_id: str, split: str) -> VideoFile:
        """Return the video that has this number as its name."""
        return self.videos.find(video_id, FOLDERS, usual_suffix=".mp4")

    def _row(self, split: str, number: int, element: dict[str, Any]) -> Row:
        return Row(
            split=split,
            video_id=str(element["id"]),
            question_id=number,
            question=element["question"],
            answer=str(element["ans"]).strip(),
            type=_last_function(element["program"]),
            source=question_file(split),
            number=number,
        )


def _last_function(program: list[Any]) -> str:
    step = program[-1] if program else None
    if isinstance(step, dict):
        step = step.get("function", step.get("type"))
    return step if isinstance(step, str) and step else OTHER_TYPE
