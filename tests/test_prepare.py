"""`prepare`: counts, missing videos, repetition, and equality with the golden data."""

import hashlib
import json
import threading

import numpy as np
import pytest

from msvqa.data.prepared import Prepared
from msvqa.data.text import AnswerList, Vocabulary
from msvqa.errors import DataError
from msvqa.prepare import prepare, summary
from msvqa.recipe import DataConfig
from tests.msvd_folder import QUESTIONS, STEMS, write_msvd
from tests.object_store import BUCKET, object_store

N_QUESTIONS = {"train": 30_933, "val": 6_415, "test": 13_157}
N_VIDEOS = {"train": 1_161, "val": 245, "test": 504}


@pytest.fixture
def root(tmp_path):
    return write_msvd(tmp_path / "data")


def _config(root, **fields):
    return DataConfig(
        name="msvd_qa", root=str(root), prepared=str(root.parent / "prepared"), **fields
    )


def _stamp(prepared):
    return {file.name: file.stat().st_ino for file in prepared.path.iterdir()}


def test_missing_videos_are_counted_listed_and_refused(root):
    (root / "video" / f"{STEMS[2]}.avi").unlink()
    (root / "video" / f"{STEMS[5]}.avi").unlink()
    with pytest.raises(DataError, match=r"2 of 5 videos are missing \(3 of 7 questions\)") as error:
        prepare(_config(root))
    assert "--allow-missing" in str(error.value)
    listed = (root.parent / "prepared" / "missing.txt").read_text().splitlines()
    assert listed == [f"train\t2\tvideo/{STEMS[2]}.avi", f"test\t5\tvideo/{STEMS[5]}.avi"]

    prepared = prepare(_config(root, allow_missing=True))
    counts = prepared.info["splits"]["train"]
    assert counts["videos"] == {"expected": 2, "present": 1, "missing": 1}
    assert counts["questions"] == {"expected": 4, "present": 2, "missing": 2}
    split = prepared.split("train")
    assert (split.media.id, len(split), split.expected) == (["1"], 2, 4)
    everything = prepared.split("train", present_only=False)
    assert (everything.media.id, everything.media.path[1], len(everything)) == (["1", "2"], "", 4)
    assert "train: 2 of 4 questions, 1 of 2 videos, 1 missing" in summary(prepared)
    with pytest.raises(DataError, match="2 of 5 videos"):
        prepare(_config(root))


def test_a_video_without_a_file_name_counts_as_missing(root):
    questions = QUESTIONS | {"val": [QUESTIONS["val"][0] | {"video_id": 77}]}
    write_msvd(root, questions)
    with pytest.raises(
        DataError,
        match=r"val_qa\.json: row 0: video 77 of val \(1 question\): not in youtube_mapping\.txt",
    ):
        prepare(_config(root))
    assert prepare(_config(root, allow_missing=True)).split("val").expected == 1


def test_nothing_is_written_again_when_nothing_has_changed(root):
    first = _stamp(prepare(_config(root)))
    assert _stamp(prepare(_config(root))) == first


@pytest.mark.parametrize("change", ["video", "question", "mapping", "setting", "damage", "killed"])
def test_any_change_builds_the_folder_again(root, change):
    prepared = prepare(_config(root))
    (prepared.path / "clips-8x16").mkdir()
    before, fields = _stamp(prepared), {}
    if change == "video":
        (root / "video" / f"{STEMS[2]}.avi").unlink()
        fields = {"allow_missing": True}
    elif change == "question":
        write_msvd(root, QUESTIONS | {"val": [QUESTIONS["val"][0] | {"answer": "cat"}]})
    elif change == "mapping":
        (root / "youtube_mapping.txt").open("a").write("\nx vid100")
    elif change == "setting":
        fields = {"answer_top": 1}
    elif change == "damage":
        (prepared.path / "vocabulary.json").write_text("[]")
    else:
        (prepared.path / "prepare.json").unlink()
        (prepared.path / ".building-x").mkdir()
    after = _stamp(prepare(_config(root, **fields)))
    assert after["prepare.json"] != before.get("prepare.json") or change == "killed"
    assert after["examples.arrow"] != before["examples.arrow"]
    # What was extracted stays, what a killed process left behind does not.
    assert "clips-8x16" in after
    assert not any(name.startswith(".building") for name in after)


@pytest.mark.long
def test_two_processes_may_prepare_the_same_folder(root):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(prepare(_config(root)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(prepared.split("train")) for prepared in results] == [4] * 4


def test_unknown_answers_have_their_own_classes(root):
    prepared = prepare(_config(root, answer_top=1))
    assert prepared.lexicon.of(AnswerList).answers == ["<UNK0>", "<UNK1>", "man"]
    assert prepared.split("train").examples.answer_id.tolist() == [0, 2, 0, 2]
    assert prepared.split("val").examples.answer_id.tolist() == [1]
    assert prepared.info["splits"]["test"]["unknown_answers"] == 2


def test_word_vectors_are_kept_for_the_vocabulary_alone(root):
    (root / "glove.txt").write_text("the 1 2\nman 3 4\ncats 5 6\n")
    prepared = prepare(_config(root, word_vectors=str(root / "glove.txt"), word_size=2))
    vectors = prepared.word_vectors()
    row = prepared.lexicon.of(Vocabulary).tokens.index("man")
    assert vectors.shape == (len(prepared.lexicon.of(Vocabulary)), 2)
    assert vectors[row].tolist() == [3, 4]
    assert prepared.info["word_vectors"]["found"] == 2


def test_absent_word_vectors_are_said_aloud(root):
    prepared = prepare(_config(root))
    assert prepared.word_vectors() is None
    assert any("random" in line for line in summary(prepared))


def test_a_data_set_without_training_questions_is_refused(root):
    write_msvd(root, QUESTIONS | {"train": []})
    with pytest.raises(DataError, match="no training questions"):
        prepare(_config(root))


@pytest.fixture(scope="module")
def real(msvd_annotations, tmp_path_factory) -> Prepared:
    folder = tmp_path_factory.mktemp("real")
    config = DataConfig(
        name="msvd_qa", root=str(msvd_annotations), prepared=str(folder), allow_missing=True
    )
    return prepare(config)


@pytest.mark.long
def test_the_real_annotations_have_the_published_counts(real):
    for name, counts in real.info["splits"].items():
        assert counts["questions"] == {
            "expected": N_QUESTIONS[name],
            "present": 0,
            "missing": N_QUESTIONS[name],
        }
        assert counts["videos"]["missing"] == N_VIDEOS[name]
        split = real.split(name)
        assert (len(split), split.media.id, split.expected) == (0, [], N_QUESTIONS[name])
    assert (len(real.lexicon.of(Vocabulary)), len(real.lexicon.of(AnswerList))) == (4_809, 1_854)
    assert len((real.path / "missing.txt").read_text().splitlines()) == 1_910


@pytest.mark.long
@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_the_real_questions_equal_the_golden_ones(real, golden, name):
    expected = np.load(golden / "videoqa" / "questions_full.npz", allow_pickle=False)
    split = real.split(name, present_only=False)
    in_file_order = np.argsort(split.examples.question_id)
    videos = np.array([int(video) for video in split.media.id])[split.examples.medium]
    arrays = {
        "questions": split.examples.words(np.arange(len(split))),
        "questions_len": split.examples.length,
        "answers": split.examples.answer_id,
        "video_ids": videos,
    }
    assert arrays["questions"].shape == tuple(expected[f"{name}/shape"])
    for key, array in arrays.items():
        content = np.ascontiguousarray(array[in_file_order], dtype="<i4").tobytes()
        assert hashlib.sha256(content).hexdigest() == str(expected[f"{name}/{key}_sha256"]), key
    counts = real.info["splits"][name]
    assert counts["unknown_answers"] == expected[f"{name}/num_answer_unk"]
    assert counts["unknown_words"] == expected[f"{name}/num_token_unk"]
    assert real.lexicon.of(Vocabulary).tokens == expected["vocab/question_tokens"].tolist()
    assert real.lexicon.of(AnswerList).answers == expected["vocab/answer_tokens"].tolist()


def _write_subset(root, expected, annotations):
    for name in N_QUESTIONS:
        elements = json.loads((annotations / f"{name}_qa.json").read_text())
        wanted = set(expected[f"{name}/source_ids"].tolist())
        chosen = [element for element in elements if element["id"] in wanted]
        (root / f"{name}_qa.json").write_text(json.dumps(chosen))
    mapping = (annotations / "youtube_mapping.txt").read_text()
    (root / "youtube_mapping.txt").write_text(mapping)
    words, vectors = expected["glove_in/words"], expected["glove_in/vectors"]
    lines = [f"{w} {' '.join(map(repr, v.tolist()))}" for w, v in zip(words, vectors, strict=True)]
    (root / "glove.txt").write_text("\n".join(lines))


def test_a_subset_equals_the_golden_one_with_word_vectors(golden, msvd_annotations, tmp_path):
    expected = np.load(golden / "videoqa" / "questions_subset.npz", allow_pickle=False)
    root = tmp_path / "data"
    root.mkdir()
    _write_subset(root, expected, msvd_annotations)
    config = _config(root, allow_missing=True, word_vectors=str(root / "glove.txt"), word_size=8)
    prepared = prepare(config)
    assert prepared.lexicon.of(Vocabulary).tokens == expected["vocab/question_tokens"].tolist()
    assert prepared.lexicon.of(AnswerList).answers == expected["vocab/answer_tokens"].tolist()
    np.testing.assert_array_equal(prepared.word_vectors(), expected["train/glove"])
    for name in N_QUESTIONS:
        asked = prepared.split(name, present_only=False).examples
        order = np.argsort(asked.question_id)
        np.testing.assert_array_equal(asked.question_id[order], expected[f"{name}/source_ids"])
        np.testing.assert_array_equal(asked.words(order), expected[f"{name}/questions"])
        np.testing.assert_array_equal(asked.length[order], expected[f"{name}/questions_len"])
        np.testing.assert_array_equal(asked.answer_id[order], expected[f"{name}/answers"])
    top = prepare(config.model_copy(update={"answer_top": 20}))
    split = top.split("train", present_only=False)
    assert top.lexicon.of(AnswerList).answers == expected["top20/answer_tokens"].tolist()
    np.testing.assert_array_equal(
        split.examples.answer_id[np.argsort(split.examples.question_id)], expected["top20/answers"]
    )


@pytest.mark.long
def test_files_of_an_earlier_preparation_leave_the_object_store(root, monkeypatch, tmp_path):
    monkeypatch.setenv("MSVQA_CACHE", str(tmp_path / "cache"))
    (root / "glove.txt").write_text("what 0.5 0.5\n")
    with object_store():
        vectors = {"word_vectors": str(root / "glove.txt"), "word_size": 2}
        there = {"prepared": f"s3://{BUCKET}/p"}
        with_vectors = _config(root, **vectors).model_copy(update=there)
        without = _config(root).model_copy(update=there)
        assert prepare(with_vectors).word_vectors() is not None
        first = prepare(without)
        assert first.word_vectors() is None
        again = prepare(without)
        assert again.path == first.path, "nothing was built and fetched again"


def test_allowing_a_video_or_following_links_leaves_the_folder_as_it_is(root):
    before = _stamp(prepare(_config(root)))
    assert _stamp(prepare(_config(root, shared_videos=("1",), follow_links=True))) == before
