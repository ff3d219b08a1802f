"""Writes small folders in the MSVD-QA layout."""

import json
from pathlib import Path

QUESTIONS = {
    "train": [
        {"id": 0, "video_id": 1, "question": "what is a man doing?", "answer": "run"},
        {"id": 1, "video_id": 1, "question": "who is running?", "answer": "man"},
        {"id": 2, "video_id": 2, "question": "how many cats are there?", "answer": "two"},
        {"id": 3, "video_id": 2, "question": "who cannot swim?", "answer": "man"},
    ],
    "val": [{"id": 4, "video_id": 3, "question": "who is singing?", "answer": "bird"}],
    "test": [
        {"id": 5, "video_id": 4, "question": "what is a man doing?", "answer": "run"},
        {"id": 6, "video_id": 5, "question": "where is it?", "answer": "field"},
    ],
}
STEMS = {1: "-4wsuPCjDBc_5_15", 2: "a_b_1_2", 3: "c_1_2", 4: "d_1_2", 5: "e_1_2"}


def write_msvd(
    root: Path,
    questions: dict[str, list[dict]] = QUESTIONS,
    stems: dict[int, str] = STEMS,
    videos: tuple[int, ...] = (1, 2, 3, 4, 5),
) -> Path:
    """Write annotations, and empty files for some of the videos."""
    (root / "video").mkdir(parents=True, exist_ok=True)
    for split, elements in questions.items():
        (root / f"{split}_qa.json").write_text(json.dumps(elements))
    lines = [f"{stem} vid{number}" for number, stem in stems.items()]
    (root / "youtube_mapping.txt").write_text("\n".join(lines))
    for number in videos:
        (root / "video" / f"{stems[number]}.avi").touch()
    return root
