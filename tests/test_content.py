"""What lies in the place of a file is known by its first bytes."""

import pytest

from msvqa.content import stand_in


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><title>Sign in</title>", "web page"),
        (b"\xef\xbb\xbf\r\n  <HTML lang='en'>", "web page"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "web page"),
        (bytes(1024), "begins with zeros"),
    ],
)
def test_what_a_failed_download_leaves_is_named(start, said):
    assert said in stand_in(start)


@pytest.mark.parametrize(
    "start",
    [
        b"PK\x03\x04",
        b"\x80\x02\x8a\nl\xfc",
        b"the 0.1 0.2\n",
        b"\x89HDF\r\n\x1a\n",
        b"<unk> 0.1 0.2\n",
        b"<html 0.1"[:1],
        b"RIFF....AVI ",
        bytes(8),
    ],
)
def test_other_content_is_not_judged(start):
    assert stand_in(start) is None
