"""QQ Browser: tags and pairs from records, and what is wrong with these."""

import numpy as np
import pytest

from msvqa.data.chance import Chance
from msvqa.data.dataset import open_dataset
from msvqa.data.examples.pairs import Pairs
from msvqa.data.examples.tags import Tags
from msvqa.data.processors.vectors import Vectors
from msvqa.data.records import as_example, read_records, write_records
from msvqa.data.tags import TagList
from msvqa.errors import DataError
from msvqa.prepare import prepare
from tests.similar_videos import config_of, write_similar


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("similar") / "set"
    write_similar(folder)
    return folder


@pytest.fixture
def own(tmp_path):
    write_similar(tmp_path / "set")
    return tmp_path / "set"


def test_videos_with_tags(root, tmp_path):
    prepared = prepare(config_of(root, prepared=str(tmp_path)))
    split = prepared.split("train")
    assert len(split.of(Tags)) == len(split.media) == 40
    assert prepared.lexicon.names == ["text", "tags"]
    assert prepared.lexicon.sizes().items() >= {"text": 69, "tags": 40}.items()
    batch = split.examples.tensors(np.array([3, 0, 17]))
    assert {k: tuple(v.shape) for k, v in batch.items()} == {
        "tokens": (3, 32), "token_mask": (3, 32), "tag_indices": (3, 4),
    }  # fmt: skip
    assert batch["token_mask"].sum(dim=1).tolist() == [10, 10, 10]
    assert (batch["tokens"][:, 0] == 2).all()
    assert (batch["tag_indices"].diff(dim=1) > 0).all(), "columns are ascending"
    listed = sorted(int(line) for line in (root / "tag_list.txt").read_text().split())
    assert [int(tag) for tag in prepared.lexicon.of(TagList).to_json().split('"')[1::2]] == listed
    shown = split.examples.shown(np.array([5]))["title"][0]
    assert len(shown) == 8


def test_hidden_words_depend_on_seed_epoch_and_row_alone(root, tmp_path):
    examples = prepare(config_of(root, prepared=str(tmp_path))).split("train").examples
    rows = np.arange(40)
    first = examples.tensors(rows, Chance(0, 1))
    turned = examples.tensors(rows[::-1].copy(), Chance(0, 1))
    assert (first["masked_tokens"] == turned["masked_tokens"].flip(0)).all()
    assert (first["masked_tokens"] != examples.tensors(rows, Chance(0, 2))["masked_tokens"]).any()
    chosen = first["token_labels"] != -100
    assert (first["token_labels"][chosen] == first["tokens"][chosen]).all()
    assert (first["masked_tokens"][~chosen] == first["tokens"][~chosen]).all()
    assert 0.08 < chosen.sum() / (40 * 8) < 0.25
    assert not chosen[:, 0].any() and not chosen[:, 9:].any(), "only words of the title"
    assert 0.5 < (first["masked_tokens"][chosen] == 4).float().mean() <= 1


def test_nothing_is_hidden_where_nothing_is_asked(root, tmp_path):
    config = config_of(root, prepared=str(tmp_path), masked_words=0.0)
    examples = prepare(config).split("train").examples
    assert "masked_tokens" not in examples.tensors(np.arange(3), Chance(0, 0))


def test_pairs_have_two_media_each(root, tmp_path):
    split = prepare(config_of(root, part="pairwise", prepared=str(tmp_path))).split("train")
    assert (len(split.of(Pairs)), len(split.media)) == (60, 48)
    labels = [line.split("\t") for line in (root / "pairwise/label.tsv").read_text().splitlines()]
    media = [[split.media.id[row] for row in pair] for pair in split.examples.media]
    assert media == [line[:2] for line in labels]
    batch = split.examples.tensors(np.array([1, 0]), Chance(0, 0))
    assert batch["tokens"].shape == batch["token_mask"].shape == (2, 2, 32)
    assert batch["tag_indices"].shape == (2, 2, 4)
    expected = np.array([labels[1][2], labels[0][2]], dtype=np.float32)
    np.testing.assert_array_equal(batch["similarity"], expected)
    assert "masked_tokens" not in batch


@pytest.mark.parametrize(("part", "kind", "n"), [("test_a", Tags, 24), ("test_b", Pairs, 20)])
def test_tests_have_no_tags_and_need_no_training(root, tmp_path, part, kind, n):
    config = config_of(root, part=part, prepared=str(tmp_path))
    split = prepare(config, trains=False).split("test")
    assert len(split.of(kind)) == n
    assert split.examples.tensors(np.arange(2))["tag_indices"].shape[-1] == 0


def test_frames_come_from_the_bytes_of_a_record(root, tmp_path):
    media = prepare(config_of(root, prepared=str(tmp_path))).split("train").media
    config = Vectors.Config(
        width=16, frames=4, dtype="float16", batch_dtype="float32", sampling="strided"
    )
    processor = Vectors(config)
    (arrays,) = processor.arrays([media.medium(7)])
    assert arrays["vectors"].dtype == np.float16 and arrays["vectors"].shape == (4, 16)
    drawn = processor.draw(arrays, None)
    assert drawn["vectors"].dtype == np.float32
    np.testing.assert_array_equal(drawn["vectors"], arrays["vectors"])
    with_less = Vectors(config.model_copy(update={"width": 8}))
    entry = with_less.extractor().extract(media.medium(7))
    assert entry.outcome == "bad_record" and "holds entries of [32] bytes" in entry.error


def test_damage_is_counted_and_named_by_file_and_byte(own):
    file = own / "pointwise/pretrain_0.tfrecords"
    records = list(read_records(file))
    content = bytearray(file.read_bytes()[:-3])
    content[records[2].start + 40] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"2 of 40 videos are missing \(2 of 40 tags\)") as caught:
        prepare(config_of(own))
    place = f"pointwise/pretrain_0.tfrecords@{records[2].start}"
    assert f"train {place}: its content does not fit its checksum" in str(caught.value)
    assert f"@{records[39].start}: cut short" in str(caught.value)
    split = prepare(config_of(own, allow_missing=True)).split("train")
    assert (len(split), split.expected) == (38, 40)
    problems = open_dataset(config_of(own)).annotate().problems
    assert [problem.kind for problem in problems] == ["damaged_record"] * 2


def test_a_damaged_record_is_not_a_row_of_zeros(own):
    config = config_of(own)
    split = prepare(config).split("train")
    file = own / "pointwise/pretrain_0.tfrecords"
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)
    entry = Vectors(Vectors.Config(width=16, frames=4)).extractor().extract(split.media.medium(0))
    assert (entry.outcome, entry.arrays) == ("bad_record", None)
    assert "record at byte 0: its content does not fit its checksum" in entry.error


def test_ids_that_no_record_has_are_named(own):
    labels = own / "pairwise/label.tsv"
    labels.write_text(labels.read_text() + "123\t456\t0.5\n")
    config = config_of(own, part="pairwise")
    with pytest.raises(DataError, match=r"2 of 50 videos are missing \(1 of 61 pairs\)") as caught:
        prepare(config)
    assert "123: label.tsv names it in line 61, and no record of pairwise has it" in str(
        caught.value
    )
    split = prepare(config.model_copy(update={"allow_missing": True})).split("train")
    assert (len(split), split.expected) == (60, 61)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1\t2", "line 61: two ids and a number, divided by tabs, are needed, found 2 cells"),
        ("1\t2\tx", "line 61: 'x' is not a number"),
        ("1\t2\tnan", "line 61: the similarity nan is not between 0 and 1"),
        ("1\t2\t1.5", "line 61: the similarity 1.5 is not between 0 and 1"),
    ],
)
def test_rows_of_labels_are_looked_at(own, line, message):
    labels = own / "pairwise/label.tsv"
    labels.write_text(labels.read_text() + line + "\n")
    with pytest.raises(DataError, match=message):
        prepare(config_of(own, part="pairwise"))


def test_an_absent_part_is_one_clear_error(own):
    (own / "pairwise/pairwise.tfrecords").unlink()
    with pytest.raises(DataError, match=r"no files pairwise/\*\.tfrecords; there are the parts"):
        prepare(config_of(own, part="pairwise"))
    assert len(prepare(config_of(own)).split("train")) == 40, "the others can be used"


def test_two_records_of_one_id_are_told(own):
    file = own / "pointwise/pretrain_0.tfrecords"
    contents = [record.content for record in read_records(file)]
    write_records(own / "pointwise/pretrain_1.tfrecords", [contents[3], as_example({"id": [b"7"]})])
    prepared = prepare(config_of(own))
    assert len(prepared.split("train")) == 41
    assert any("1 x a record with an id that another one has" in n for n in prepared.info["notes"])
    assert any("1 of 41 titles of training are empty" in n for n in prepared.info["notes"])


def test_a_changed_record_is_noticed(own):
    first = open_dataset(config_of(own)).fingerprint()
    file = own / "pointwise/pretrain_0.tfrecords"
    contents = [record.content for record in read_records(file)]
    write_records(file, [contents[1], contents[0], *contents[2:]])
    assert open_dataset(config_of(own)).fingerprint() != first


def test_a_tag_that_is_no_number_is_named(own):
    (own / "tag_list.txt").write_text("12\ncat\n")
    with pytest.raises(DataError, match=r"tag_list\.txt: line 2: 'cat' is not a whole number"):
        prepare(config_of(own))


def test_a_link_out_of_the_root_is_refused(own, tmp_path):
    file = own / "pointwise/pretrain_0.tfrecords"
    file.rename(tmp_path / "elsewhere.tfrecords")
    file.symlink_to(tmp_path / "elsewhere.tfrecords")
    with pytest.raises(DataError, match="leaves the data root by a link"):
        prepare(config_of(own))
    assert len(prepare(config_of(own, follow_links=True)).split("train")) == 40


def test_titles_are_read_again_with_the_words_of_a_model(root, tmp_path):
    prepared = prepare(config_of(root, part="pairwise", prepared=str(tmp_path)))
    split = prepared.split("train")
    again = split.examples.read_with(prepared.lexicon, trains=True)
    for name, tensor in split.examples.tensors(np.arange(60)).items():
        assert (again.tensors(np.arange(60))[name] == tensor).all()
