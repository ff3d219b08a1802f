"""HDF5 files of others: ids of any type, layouts that are explained, nothing from other files."""

import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from msvqa.data import hdf5
from msvqa.data.hdf5 import Rows
from msvqa.errors import DataError, StorageError, VideoError

VALUES = np.arange(5 * 3, dtype=np.float32).reshape(5, 3)
IDS = [7, 3, 11, 20, 5]


def write(file, ids=IDS, values=VALUES, **settings) -> str:
    with h5py.File(file, "w") as data:
        data.create_dataset("features", data=values, **settings)
        data["ids"] = ids
    return str(file)


def refusal(file) -> str:
    """Return the one sentence with which a file is refused."""
    with pytest.raises(DataError) as caught:
        Rows(str(file), ["features"])
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "ids",
    [
        np.array(IDS, np.uint8),
        np.array(IDS, np.float64),
        np.array(IDS)[:, None],
        np.array([b"0007", b"0003", b"0011", b"0020", b"0005"]),
        np.array(["7", "3 ", "11", "20", "5"], dtype=h5py.string_dtype()),
    ],
    ids=["integers", "floats", "column", "padded bytes", "text"],
)
def test_numbers_of_any_type_are_ids(tmp_path, ids):
    rows = Rows(write(tmp_path / "a.h5", ids), ["features"])
    assert rows.video_ids == ["7", "3", "11", "20", "5"]
    np.testing.assert_array_equal(rows.read("11"), VALUES[2])


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["video7", "a", "b", "c", "d"], "has 'video7' in row 0, which is no whole number"),
        ([b"\xff", b"1", b"2", b"3", b"4"], "in row 0, which is no whole number"),
        ([1.0, 2.0, np.nan, 3.0, 4.0], "has 'nan' in row 2, which is no whole number"),
        ([1, 2, 3, 4.5, 5], "has '4.5' in row 3"),
        (["9" * 5000, "1", "2", "3", "4"], "in row 0, which is no whole number"),
        ([1, 2, 1, 3, 4], "not one different number for each row: 1 is in the rows 0 and 2"),
        ([b"1", b"01", b"2", b"3", b"4"], "1 is in the rows 0 and 1"),
        ([1, 2, 3], r"has shape (3,), there are 5 rows"),
        (7, r"has shape (), there are 5 rows"),
        (np.zeros(5, [("a", int)]), "wants whole numbers"),
    ],
)
def test_other_ids_are_one_sentence(tmp_path, ids, said):
    assert said in refusal(write(tmp_path / "a.h5", ids))


def test_other_layouts_are_one_sentence_that_says_what_was_found(tmp_path):
    file = tmp_path / "a.h5"
    with h5py.File(file, "w") as data:
        for video in range(12):
            data[f"{video}/features"] = VALUES[0]
    said = refusal(file)
    assert "wants features and ids, it has 0 (a group), 1 (a group)" in said
    assert "and 7 more" in said
    with h5py.File(file, "w") as data:
        data["features/7"], data["ids"] = VALUES[0], IDS
    assert "features is a group, wants a data set" in refusal(file)
    with h5py.File(file, "w") as data:
        data["features"], data["ids/a"] = VALUES, IDS
    assert "ids is a group, wants a data set" in refusal(file)
    for strange in (np.array([b"a"] * 5), 1.0, h5py.Empty("f4"), np.ones(5, complex)):
        write(file, values=strange)
        assert "wants numbers with a row for each video" in refusal(file)
    with h5py.File(file, "w") as data:
        data.create_dataset("features", (10**12, 4), "f4", chunks=(1, 4))
        data["ids"] = IDS
    assert "read are at most" in refusal(file)
    h5py.File(file, "w").close()
    assert "it has nothing" in refusal(file)


def test_what_is_no_whole_file_is_one_sentence(tmp_path):
    whole = write(tmp_path / "a.h5")
    cut = tmp_path / "cut.h5"
    cut.write_bytes(Path(whole).read_bytes()[:-500])
    assert f"is cut short: there are {cut.stat().st_size} bytes" in refusal(cut)
    (tmp_path / "page.h5").write_text("<html>")
    assert "is a web page" in refusal(tmp_path / "page.h5")
    (tmp_path / "text.h5").write_text("no file of this kind")
    assert "no HDF5 file" in refusal(tmp_path / "text.h5")
    assert "there is no such file" in refusal(tmp_path / "absent.h5")
    assert "cannot be read: " in refusal(tmp_path)


def test_nothing_is_read_from_other_files(tmp_path):
    other = write(tmp_path / "other.h5")
    file = tmp_path / "a.h5"
    # A pipe: who opened it would hang.
    os.mkfifo(tmp_path / "pipe.h5")
    for name in ("features", "ids"):
        for link in (h5py.ExternalLink(tmp_path / "pipe.h5", "/features"), h5py.SoftLink("/x")):
            with h5py.File(file, "w") as data:
                data[name], data[{"features": "ids", "ids": "features"}[name]] = link, VALUES
            assert f"{name} is a link" in refusal(file)
    with h5py.File(file, "w") as data:
        data["elsewhere"] = h5py.ExternalLink(tmp_path / "pipe.h5", "/")
    assert "it has elsewhere (a link)" in refusal(file)
    layout = h5py.VirtualLayout(VALUES.shape, VALUES.dtype)
    layout[:] = h5py.VirtualSource(other, "features", VALUES.shape)
    with h5py.File(file, "w") as data:
        data.create_virtual_dataset("features", layout)
        data["ids"] = IDS
    assert "takes its content from other files" in refusal(file)
    with h5py.File(file, "w") as data:
        data.create_dataset("features", (5, 3), "f4", external=[(other, 0, 60)])
        data["ids"] = IDS
    assert "takes its content from other files" in refusal(file)


def test_a_filter_that_is_not_installed_is_named(tmp_path, monkeypatch):
    # Hidden where it is installed: its import would make the filter known.
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((5, 3))
    plist.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4, 8))
    with h5py.File(tmp_path / "a.h5", "w") as data:
        space = h5py.h5s.create_simple((5, 3))
        h5py.h5d.create(data.id, b"features", h5py.h5t.IEEE_F32LE, space, plist)
        data["ids"] = IDS
    said = refusal(tmp_path / "a.h5")
    assert "packed with HDF5 filter 32001" in said
    assert "pip install hdf5plugin" in said


def damage(file: str, row: int) -> None:
    """Change a byte of a row, which has a checksum."""
    with h5py.File(file) as data:
        place = data["features"].id.get_chunk_info_by_coord((row, 0)).byte_offset
    with Path(file).open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte[0] ^ 255]))


@pytest.mark.parametrize("block_bytes", [1, 30, 10_000])
def test_blocks_give_every_row_that_is_wanted(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(hdf5, "BLOCK_BYTES", block_bytes)
    file = write(tmp_path / "a.h5", chunks=(1, 3), fletcher32=True)
    damage(file, 2)
    rows = Rows(file, ["features"])
    found = {}
    for videos, block in rows.blocks(["5", "11", "3", "99"]):
        found |= {video: None if block is None else block[n] for n, video in enumerate(videos)}
    assert list(found) == ["3", "11", "5"]
    assert found["11"] is None
    np.testing.assert_array_equal(found["3"], VALUES[1])
    np.testing.assert_array_equal(found["5"], VALUES[4])
    with pytest.raises(VideoError, match=r"a\.h5: features, row 2 cannot be read") as caught:
        rows.read("11")
    assert caught.value.outcome == "unreadable"


def test_storage_that_fails_says_nothing_about_a_row(tmp_path, monkeypatch):
    rows = Rows(write(tmp_path / "a.h5"), ["features"])

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", fail)
    with pytest.raises(StorageError, match=r"row 1 cannot be read: .*Input/output error"):
        rows.read("3")


def test_a_chunk_larger_than_memory_has_room_for_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "BLOCK_BYTES", 2 * VALUES[0].nbytes)
    rows = Rows(write(tmp_path / "f.h5", chunks=(5, 1)), ["features"])
    assert rows._rows_per_block() == 2
    whole_chunks = Rows(write(tmp_path / "g.h5", chunks=(1, 3)), ["features"])
    assert whole_chunks._rows_per_block() == 2
