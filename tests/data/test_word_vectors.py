"""Word vectors from files of every kind."""

import gzip
import zipfile

import numpy as np
import pytest

from msvqa.data.word_vectors import read_word_vectors
from msvqa.errors import DataError

WORDS = ["<NULL>", "<UNK>", "cat", "dog", "."]
TEXT = "the 1 2 3\ncat 0.5 -1e-1 3\n. . . 7 8 9\nDog 1 1 1\ncat 9 9 9\n. 4 5 6\n"
EXPECTED = np.array([[0, 0, 0], [0, 0, 0], [0.5, -0.1, 3], [0, 0, 0], [4, 5, 6]], dtype=np.float32)


def _file(folder, kind, text=TEXT):
    path = folder / f"glove.{kind}"
    if kind == "gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("glove.3d.txt", text)
            archive.writestr("glove.5d.txt", "the 1 2 3 4 5\n")
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("kind", ["txt", "gz", "zip"])
def test_every_kind_of_file_gives_the_same_vectors(tmp_path, kind):
    vectors = read_word_vectors(_file(tmp_path, kind), WORDS, 3)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, EXPECTED)


def test_a_word2vec_header_is_skipped(tmp_path):
    vectors = read_word_vectors(_file(tmp_path, "txt", "6 3\n" + TEXT), WORDS, 3)
    np.testing.assert_array_equal(vectors, EXPECTED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT, "the lines have 3 numbers, data.word_size is 4"),
        ("the 1 2 3 4\ncat 1 2\n", "line 2 has 2 numbers, 4 are needed"),
        ("the 1 2 3 4\ncat 1 2 x 4\n", "line 2: .* is not a word and 4 numbers"),
        ("the 1 2 3 4\ncat 1 2 nan 4\n", "line 2: a number is not finite"),
        ("the 1 2 3 4\ncat 1 2 -1e39 4\n", "line 2: a number is not finite"),
        ("the 1 2 3 4\n", "vectors of none of the 5 words"),
        ("the 1 2 3 4\n" + "x" * 100_000, "line 2 is longer than"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_word_vectors(_file(tmp_path, "txt", text), WORDS, 4)


HEADER = "6 3\n"
SPACES_FIRST = ". . . 7 8 9\nat name@domain.com 1 1 1\n\u00a0 2 2 2\n1 2 3 4 4 4\n" + TEXT
WRITTEN = {
    "header": (HEADER + TEXT).encode(),
    "mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "mark, then header": b"\xef\xbb\xbf" + (HEADER + TEXT).encode(),
    "windows": TEXT.replace("\n", "\r\n").encode(),
    "spaces at the ends": TEXT.replace("\n", " \r\n").encode(),
    "tabs": TEXT.replace(" ", "\t").replace(".\t.\t.", ". . .").encode(),
    "tab after the word": TEXT.replace("cat ", "cat\t").encode(),
    "two spaces": TEXT.replace("cat ", "cat  ").encode(),
    "words with spaces first": SPACES_FIRST.encode(),
    "no end of line": TEXT.rstrip("\n").encode(),
    "empty lines": TEXT.replace("\n", "\n\n").encode(),
}


@pytest.mark.parametrize("name", ["vectors.vec", "vectors.txt", "vectors"])
@pytest.mark.parametrize("kind", WRITTEN)
def test_vectors_are_right_however_they_are_written(kind, name, tmp_path):
    (tmp_path / name).write_bytes(WRITTEN[kind])
    np.testing.assert_array_equal(read_word_vectors(tmp_path / name, WORDS, 3), EXPECTED)


@pytest.mark.parametrize("cut", [1, 10, 40])
@pytest.mark.parametrize("kind", ["gz", "zip"])
def test_a_cut_archive_is_never_taken_for_a_whole_one(kind, cut, tmp_path):
    path = _file(tmp_path, kind, TEXT + "".join(f"w{n} {n} 2 3\n" for n in range(500)))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match="damaged or cut short"):
        read_word_vectors(path, WORDS, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER.replace("6", "7") + TEXT, "is cut short: line 1 says 7 vectors, 6 are there"),
        (TEXT + "dog 1 2", "is cut short: it ends within line 7"),
        (TEXT + "horse 1", "is cut short: it ends within line 7"),
        ("6 4\n" + TEXT, "says that its vectors have 4 numbers, data.word_size is 3"),
        ("the 1 2 3\ncat 1 2\n", "line 2 has 2 numbers, 3 are needed"),
        ("", "is empty"),
        ("\n\n", "holds no word vectors"),
        ("word;one;two\n", "holds no word vectors: line 1 is b'word;one;two'"),
        ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("<html><body>Not found</body>", "is a web page"),
    ],
)
def test_what_is_cut_or_is_something_else_is_named(content, message, tmp_path):
    (tmp_path / "glove.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        read_word_vectors(tmp_path / "glove.txt", WORDS, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.encode("utf-16"), "UTF-16"),
        (b"3 3\nthe \0\0\x80?\0\0\0@\0\0@@\n", "word2vec's binary files"),
        (b"BZh91AY&SY", "is compressed"),
    ],
)
def test_other_formats_say_how_to_convert(content, message, tmp_path):
    (tmp_path / "glove.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_word_vectors(tmp_path / "glove.txt", WORDS, 3)


def test_companions_of_macos_in_an_archive_are_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "glove.zip", "w") as archive:
        archive.writestr("glove.txt", TEXT)
        archive.writestr("__MACOSX/._glove.txt", b"\0\5\x16\7")
    np.testing.assert_array_equal(read_word_vectors(tmp_path / "glove.zip", WORDS, 3), EXPECTED)


@pytest.mark.parametrize("kind", ["gz", "zip", "vec"])
def test_damaged_and_unknown_files_are_refused(tmp_path, kind):
    path = tmp_path / f"glove.{kind}"
    path.write_bytes(b"\x1f\x8bnothing of the kind")
    with pytest.raises(DataError, match=r"glove\."):
        read_word_vectors(path, WORDS, 3)
