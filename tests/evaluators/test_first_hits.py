"""First hits by kinds of words: counted by hand, of captions with and without kinds."""

import json

import numpy as np

from msvqa.evaluators.first_hits import LARGEST, OTHERS, UNSAID, count_first_hits, sheets_of

KINDS = [
    {"color": "red", "motion": "left"},
    {"color": "red", "motion": "right"},
    {"color": "blue", "motion": "left"},
    {"color": "blue"},
    None,
]
OWN = np.arange(5)


def counted(found, kinds=KINDS, medium=OWN):
    counts = count_first_hits(kinds, np.array(medium), np.array(found))
    assert json.loads(json.dumps(counts, allow_nan=False)) == counts, "ready for JSON"
    return counts


def test_wrong_first_hits_are_counted_by_the_kinds_in_which_they_differ():
    found = counted([1, 1, 1, 0, 2])
    assert (found["asked"], found["wrong"]) == (4, 3), "the last caption names no kinds"
    assert found["differing"] == {"motion": 1, "color and motion": 1, "color": 1}
    color, motion = found["kinds"]["color"], found["kinds"]["motion"]
    assert color == {"asked": 4, "wrong": 2, "words": ["blue", "red"], "found": [[0, 2], [0, 2]]}
    assert (motion["asked"], motion["words"]) == (3, ["left", "right"])
    assert motion["found"] == [[0, 2], [0, 1]]


def test_what_the_captions_of_a_hit_do_not_say_is_said():
    found = counted([3, 1, 2, 4, 4])
    assert found["differing"] == {"color and motion": 1, "color": 1}
    assert found["kinds"]["motion"]["words"] == ["left", "right", UNSAID]
    assert found["kinds"]["motion"]["found"][0] == [1, 0, 1]
    assert found["kinds"]["color"]["found"][0] == [1, 0, 1], "blue, and a hit without any kinds"


def test_any_caption_of_a_medium_may_say_the_word():
    kinds = [{"shape": "ring"}, {"shape": "circle"}, {"shape": "circle"}, {"shape": "disc"}]
    found = counted([0, 0, 0, 0], kinds, [0, 0, 1, 2])
    assert found["differing"] == {"none of them": 1, "shape": 1}
    assert found["kinds"]["shape"]["wrong"] == 1
    assert found["kinds"]["shape"]["words"] == ["circle", "disc", "ring"]
    # In the place of what is missed stands the first that is said.
    assert found["kinds"]["shape"]["found"][1] == [0, 0, 1]


def test_words_beyond_the_most_frequent_are_one():
    kinds = [{"noun": f"n{number % 20:02}"} for number in range(60)]
    found = counted(np.roll(np.arange(60), 1), kinds, np.arange(60))["kinds"]["noun"]
    assert len(found["words"]) == LARGEST and found["words"][-1] == OTHERS
    assert np.sum(found["found"]) == found["asked"] == found["wrong"] == 60


def test_tables_for_the_page():
    sheets = sheets_of(counted([1, 1, 1, 0, 2]))
    first, color, motion = sheets
    assert first == "What differs in 3 of 4 first hits that are wrong"
    assert ("motion", 1, 1 / 3) in sheets[first].rows
    assert color == "color: asked for and found first (2 of 4 wrong)"
    assert sheets[motion].columns == ("asked for", "left", "right")
    assert [*sheets[motion].rows] == [("left", None, 2), ("right", None, 1)]
    assert sheets_of({}) == {}
    assert [*sheets_of(counted([0, 1, 2, 3, 4]))] == [
        "color: asked for and found first (0 of 4 wrong)",
        "motion: asked for and found first (0 of 3 wrong)",
    ]
