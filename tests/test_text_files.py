"""Text of others: every Unicode encoding and line end; anything else is one sentence."""

import pytest

from msvqa.errors import DataError
from msvqa.text_files import parse_json, read_lines, read_text

TEXT = "name,caf\u00e9\n\u8d64,\U0001f4fd\nlast"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_unicode_is_read_with_and_without_a_mark(tmp_path, encoding, end):
    file = tmp_path / "text"
    file.write_bytes(TEXT.replace("\n", end).encode(encoding))
    assert read_text(file) == TEXT.replace("\n", end)
    assert [line.rstrip("\r\n") for line in read_lines(file)] == TEXT.split("\n")


def test_marks_of_joined_files_are_taken_off(tmp_path):
    file = tmp_path / "text"
    file.write_bytes("a\n".encode("utf-8-sig") + "b\n".encode("utf-8-sig") + b"c")
    assert list(read_lines(file)) == ["a\n", "b\n", "c"]


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1252", "what c\u00f4l\u00f6ur is it"),
        ("cp1251", "\u043a\u0430\u043a\u043e\u0433\u043e \u0446\u0432\u0435\u0442\u0430"),
        ("gb18030", "\u8fd9\u4e2a\u6761\u662f\u4ec0\u4e48\u989c\u8272"),
    ],
)
def test_a_code_page_is_refused_with_place_guess_and_advice(tmp_path, encoding, words):
    file = tmp_path / "text"
    lines = [b"a long first line", *(f"{words} {n}?".encode(encoding) for n in range(20))]
    file.write_bytes(b"\r\n".join(lines))
    position = next(n for n, byte in enumerate(file.read_bytes()) if byte > 127)
    with pytest.raises(DataError) as error:
        read_text(file, "q.csv")
    assert (
        f"q.csv: line 2: byte 0x{file.read_bytes()[position]:02x} at position {position} is not"
        in (str(error.value))
    )
    assert f"may be in {encoding} ('{words} 0?')" in str(error.value)
    assert "save the file as UTF-8" in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 and more", "a workbook|workbooks of Excel"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"plain\ntext\0", "line 2 holds a NUL character"),
        (b"\xff\xfea\x00b", "line 1: byte 0x62 at position 4 is not UTF-16"),
        (b"\xef\xbb\xbfa\n\xff", "line 2: byte 0xff at position 5 is not UTF-8"),
        (bytes(range(128, 256)) * 9, "looks like no text"),
    ],
)
def test_what_is_no_text_is_one_sentence(tmp_path, content, words):
    file = tmp_path / "text"
    file.write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        read_text(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1}, {"id": 7, "b": 1, "b": 2}]', r"key 'b' is there twice.*\"id\": 7"),
        ("[" * 100_000, "nested too deeply"),
        ("[1,]", "line 1 column"),
        ("9" * 5_000, "limit"),
    ],
)
def test_json_that_says_nothing_certain_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_json(text)
