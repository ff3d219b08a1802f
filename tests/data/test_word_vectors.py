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
        (TEXT, "line 1 has 3 numbers, data.word_size is 4"),
        ("the 1 2 3 4\ncat 1 2\n", "line 2 has 2 numbers, 4 are needed"),
        ("the 1 2 3 4\ncat 1 2 x 4\n", "line 2: .* is not a word and 4 numbers"),
        ("the 1 2 3 4\ncat 1 2 nan 4\n", "line 2: a number is not finite"),
        ("the 1 2 3 4\ncat 1 2 -1e39 4\n", "line 2: a number is not finite"),
        ("the 1 2 3 4\n", "none of the 5 words"),
        ("the 1 2 3 4\n" + "x" * 100_000, "line 2 is longer than"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_word_vectors(_file(tmp_path, "txt", text), WORDS, 4)


@pytest.mark.parametrize("kind", ["gz", "zip", "vec"])
def test_damaged_and_unknown_files_are_refused(tmp_path, kind):
    path = tmp_path / f"glove.{kind}"
    path.write_bytes(b"\x1f\x8bnothing of the kind")
    with pytest.raises(DataError, match=r"glove\."):
        read_word_vectors(path, WORDS, 3)
