"""Files that end before their container does, and those of which nobody knows."""

import struct

import pytest

from msvqa.data.containers import MAX_PARTS, describe_cut

MOVI = b"movi" + b"00dc" + struct.pack("<I", 92) + bytes(92)


def chunk(name, content, length=None):
    return name + struct.pack("<I", len(content) if length is None else length) + content


def avi(movi_length=None, riff_length=None):
    parts = chunk(b"LIST", b"hdrl" + bytes(8)) + chunk(b"LIST", MOVI, movi_length)
    return chunk(b"RIFF", b"AVI " + parts, riff_length)


def box(kind, content, length=None):
    return struct.pack(">I", len(content) + 8 if length is None else length) + kind + content


def matroska(segment_length):
    return b"\x1a\x45\xdf\xa3\x80" + b"\x18\x53\x80\x67" + segment_length + bytes(100)


def gif(pictures=2):
    picture = b"\x21\xf9\x04" + bytes(4) + b"\0" + b"\x2c" + bytes(9) + b"\x02\x03abc\x01d\0"
    return b"GIF89a" + bytes([4, 0, 4, 0, 0x80, 0, 0]) + bytes(6) + picture * pictures + b";"


CUT = {
    "avi": avi()[:-60],
    "avi, second part": avi() + avi()[:-60],
    "mp4": box(b"ftyp", b"isom") + box(b"mdat", bytes(100))[:-60],
    "mp4, long box": box(b"mdat", struct.pack(">Q", 1000) + bytes(100), length=1),
    "mkv": matroska(b"\x41\x00"),
    "webp": chunk(b"RIFF", b"WEBPVP8X" + bytes(40), length=1000),
    "gif, in a block": gif()[:-4],
    "gif, in a header": gif()[:30],
}
NOT_CUT = {
    "avi": avi(),
    "avi with a wrong total": avi(riff_length=9_999_999),
    "avi whose lengths count their header": avi(movi_length=len(MOVI) + 8),
    "avi that was never finished": avi(movi_length=0, riff_length=0),
    "avi with unknown lengths": avi(movi_length=0xFFFFFFFF),
    "mp4": box(b"ftyp", b"isom") + box(b"mdat", bytes(100)),
    "mp4 to the end": box(b"ftyp", b"isom") + box(b"mdat", bytes(100), length=0),
    "mp4 and something else": box(b"mdat", bytes(100)) + b"\xff\xff\xff\xffABCD" + bytes(9),
    "mkv": matroska(b"\xe4"),
    "mkv of unknown length": matroska(b"\x01" + b"\xff" * 7),
    "mkv cut in its header": matroska(b"")[:6],
    "gif": gif(),
    "gif without its end mark": gif()[:-1],
    "gif and something else": gif() + bytes(50),
    "text": b"no container",
    "empty": b"",
    "parts without end": avi() + chunk(b"JUNK", b"") * (MAX_PARTS + 9),
}


@pytest.mark.parametrize("name", CUT)
def test_a_cut_is_seen(tmp_path, name):
    file = tmp_path / "a"
    file.write_bytes(CUT[name])
    assert describe_cut(file).startswith(f"it ends after {len(CUT[name]):,} ")


@pytest.mark.parametrize("name", NOT_CUT)
def test_what_is_whole_or_unknown_is_not_cut(tmp_path, name):
    file = tmp_path / "a"
    file.write_bytes(NOT_CUT[name])
    assert describe_cut(file) == ""
