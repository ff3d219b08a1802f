"""Records of TensorFlow, read without it: whole, cut short, with a flipped bit, of another kind."""

import numpy as np
import pytest

from msvqa.data.record_index import index_of
from msvqa.data.records import (
    LastFile,
    RecordError,
    as_example,
    checksum,
    parse_example,
    read_record,
    read_records,
    write_records,
)

FRAMES = [b"\x00\x3c" * 3 + b"\x00\x00", b"\x00" * 8]
"""Rows whose last number is zero, and a row of nothing else."""


def video(name: str) -> bytes:
    return as_example(
        {"id": [name.encode()], "title": ["猫".encode()], "frame_feature": FRAMES, "tag_id": [3, 1]}
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.tfrecords"
    write_records(path, [video(str(n)) for n in range(4)])
    return path


def flip(path, byte):
    content = bytearray(path.read_bytes())
    content[byte] ^= 4
    path.write_bytes(content)


def test_the_checksum_is_the_published_one():
    # CRC-32C of "123456789" is e3069283 (RFC 3720); rotated by 15 bits, a282ead8 added.
    assert checksum(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


def test_zeros_at_the_end_of_a_row_stay(file):
    found = [parse_example(record.content) for record in read_records(file)]
    assert [example["id"][0] for example in found] == [b"0", b"1", b"2", b"3"]
    assert list(found[0]["frame_feature"]) == FRAMES
    assert list(found[0]["tag_id"]) == [3, 1]


def test_a_record_is_found_by_its_bytes_alone(file):
    with file.open("rb") as opened:
        for record in read_records(file):
            assert read_record(opened, record.start, record.end) == record.content
        with pytest.raises(RecordError, match="ends at byte"):
            read_record(opened, 0, record.end)
        with pytest.raises(RecordError, match="are not in the file"):
            read_record(opened, 0, 10**6)


def test_a_file_stays_open_until_another_lies_in_its_place(tmp_path):
    first, second, files = tmp_path / "first", tmp_path / "second", LastFile()
    first.write_bytes(b"one")
    second.write_bytes(b"two")
    opened = files.open(first)
    assert files.open(first) is opened
    second.replace(first)
    again = files.open(first)
    assert (opened.closed, again.read()) == (True, b"two")
    files.close()
    assert again.closed


def test_a_flipped_bit_of_the_content_costs_one_record(file):
    records = list(read_records(file))
    flip(file, records[1].start + 20)
    found = list(read_records(file))
    assert [bool(record.error) for record in found] == [False, True, False, False]
    assert "does not fit its checksum" in found[1].error
    assert (found[1].start, found[1].number) == (records[1].start, 1)


def test_a_flipped_bit_of_a_length_ends_the_file_by_name(file):
    start, size = list(read_records(file))[2].start, file.stat().st_size
    flip(file, start)
    found = list(read_records(file))
    assert len(found) == 3
    assert f"the {size - start} bytes from here on" in found[2].error


@pytest.mark.parametrize("left", [5, 11, 12, 30, -1])
def test_a_cut_file_is_never_taken_for_a_whole_one(file, left):
    last = list(read_records(file))[3]
    stop = last.start + left if left > 0 else last.end - 1
    file.write_bytes(file.read_bytes()[:stop])
    found = list(read_records(file))
    assert [bool(record.error) for record in found] == [False, False, False, True]
    assert "cut short" in found[3].error
    assert (found[3].start, found[3].end) == (last.start, stop)


def test_a_record_that_is_too_long_is_passed_over(file, monkeypatch):
    monkeypatch.setattr("msvqa.data.records.MAX_RECORD_BYTES", 10)
    found = list(read_records(file))
    assert len(found) == 4
    assert all("at most 10 are read" in record.error for record in found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xff\xff", "no tf.train.Example"),
        (as_example({"image": [b"x"]}), "of another kind: no 'id', but image"),
        (as_example({"id": [7], "title": [b"x"]}), "'id' is a number"),
        (as_example({"id": [b"a", b"b"]}), "'id' has 2 values"),
        (as_example({"id": [b"7"], "title": [b"\xff"]}), "'title' is not UTF-8"),
        (as_example({"id": [b"7"], "tag_id": [b"x"]}), "'tag_id' must hold whole numbers"),
        (as_example({"id": [b"7"], "title": [b"x" * 20_000]}), "longer than 10000 characters"),
        (b"", "of another kind"),
    ],
)
def test_foreign_records_are_named(tmp_path, content, message):
    write_records(tmp_path / "a.tfrecords", [video("1"), content, video("2")])
    index = index_of(tmp_path / "a.tfrecords")
    assert index["id"].to_pylist() == ["1", "", "2"]
    assert message in index["error"][1].as_py()


def test_an_index_is_kept_until_the_file_changes(file, monkeypatch):
    cache = file.parent / "records"
    first = index_of(file, cache)
    assert len(list(cache.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr("msvqa.data.record_index.read_records", lambda path: 1 / 0)
        assert index_of(file, cache).equals(first)
    next(cache.iterdir()).write_bytes(b"damaged")
    assert index_of(file, cache).equals(first)
    write_records(file, [video("9")])
    assert index_of(file, cache)["id"].to_pylist() == ["9"]


def test_checksums_tell_two_contents_apart(tmp_path):
    for name in ("a", "b"):
        write_records(tmp_path / name, [video(name)])
    first, second = (index_of(tmp_path / name)["checksum"].to_numpy() for name in ("a", "b"))
    assert not np.array_equal(first, second)
