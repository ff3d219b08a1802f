"""MSRVTT-QA: the question format of MSVD-QA with a category, and videos named by their number.

    train_qa.json  val_qa.json  test_qa.json     as MSVD-QA, with "category_id"
    TrainValVideo/video<video_id>.mp4            videos of train and val
    TestVideo/video<video_id>.mp4                videos of test

Paper: Xu et al., "Video Question Answering via Gradually Refined Attention over Appearance and
Motion", ACM Multimedia 2017.
"""

from msvqa.data.datasets.msvd_qa import MSVDQA, question_file
from msvqa.data.video_files import VideoFile


class MSRVTTQA(MSVDQA):
    """Questions about the videos of MSR-VTT."""

    def source_names(self) -> list[str]:
        """Return the names of the question files."""
        return [*map(question_file, self.splits)]

    def find_video(self, video_id: str, split: str) -> VideoFile:
        """Return the video that has this number in its name."""
        folder = "TestVideo" if split == "test" else "TrainValVideo"
        return self.videos.find(f"video{video_id}", (folder,), usual_suffix=".mp4")
