"""The twenty tasks of MVBench in the order of its leaderboard, and where their files are."""

from dataclasses import dataclass

PRE_CUT = "_segment"
"""How folders end that hold clips which are already cut: their bounds must not be applied again."""
QUESTIONS_PER_TASK = 200


@dataclass(frozen=True)
class Task:
    """One task: its names, and the layout that is published."""

    name: str
    abbreviation: str
    media_root: str
    """Folder of its media below the folder `video`."""
    bounded: bool = False
    """Whether questions are about a span of their video."""
    is_frames: bool = False
    """Whether a medium is a folder of frames in place of a video."""

    @property
    def file(self) -> str:
        """The name of its annotation file, without the ending."""
        return self.name.lower().replace(" ", "_").replace("-", "_")

    @property
    def applies_bounds(self) -> bool:
        """Whether the bounds of the annotations are still to be applied to the media."""
        return self.bounded and not self.media_root.rstrip("/").endswith(PRE_CUT)


TASKS: tuple[Task, ...] = (
    Task("Action Sequence", "AS", "star/Charades_v1_480", bounded=True),
    Task("Action Prediction", "AP", "star/Charades_v1_480", bounded=True),
    Task("Action Antonym", "AA", "ssv2_video"),
    Task("Fine-grained Action", "FA", "Moments_in_Time_Raw/videos"),
    Task("Unexpected Action", "UA", "FunQA_test/test"),
    Task("Object Existence", "OE", "clevrer/video_validation"),
    Task("Object Interaction", "OI", "star/Charades_v1_480", bounded=True),
    Task("Object Shuffle", "OS", "perception/videos"),
    Task("Moving Direction", "MD", "clevrer/video_validation"),
    Task("Action Localization", "AL", "sta/sta_video", bounded=True),
    Task("Scene Transition", "ST", "scene_qa/video"),
    Task("Action Count", "AC", "perception/videos"),
    Task("Moving Count", "MC", "clevrer/video_validation"),
    Task("Moving Attribute", "MA", "clevrer/video_validation"),
    Task("State Change", "SC", "perception/videos"),
    Task("Fine-grained Pose", "FP", "nturgbd"),
    Task("Character Order", "CO", "perception/videos"),
    Task("Egocentric Navigation", "EN", "vlnqa"),
    Task("Episodic Reasoning", "ER", "tvqa/frames_fps3_hq", bounded=True, is_frames=True),
    Task("Counterfactual Inference", "CI", "clevrer/video_validation"),
)
BY_NAME = {task.name: task for task in TASKS}
GROUPS: dict[str, tuple[str, ...]] = {
    "Action": ("AS", "AP", "AA", "FA", "UA"),
    "Object": ("OE", "OI", "OS"),
    "Position": ("MD", "AL"),
    "Scene": ("ST",),
    "Count": ("AC", "MC"),
    "Attribute": ("MA", "SC"),
    "Pose": ("FP",),
    "Character": ("CO",),
    "Cognition": ("EN", "ER", "CI"),
}
"""Abbreviations of the tasks in each group of the paper."""
