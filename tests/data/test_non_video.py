"""What a file without video is: its cause by name, and what to do about it."""

import pytest

from msvqa.data.non_video import describe, is_playlist

CONTENTS = {
    "the file is empty (0 bytes)": b"",
    "begins with zeros": bytes(100_000),
    "is a web page": b"\xef\xbb\xbf\n <!DOCTYPE html><html><body>unavailable \xe9</body></html>",
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
    "git annex get": b"../../.git/annex/objects/Xk/3p/MD5E-s1--0.mp4/MD5E-s1--0.mp4\n",
    "is a playlist (M3U), no video": b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n",
    "is a playlist (concat)": b"ffconcat version 1.0\nfile 'other.mp4'\n",
    "is a playlist (DASH)": b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>',
    "is a playlist (SDP)": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
    "is XML that begins with '<rss>": b"<rss><channel/></rss>",
    'is JSON that begins with \'{"error": "rate limit"}\'': b'{"error": "rate limit"}',
    "is text that begins with 'Too many requests'": b"Too many requests\n",
    "is a JPEG picture": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "is a ZIP archive, no video: unpack it": b"PK\x03\x04\x14\x00",
    "is a tar archive": bytes([65]) * 257 + b"ustar\x0000",
    "is cut off, its index (moov) is missing and it ends after 24 of at least 1,016 bytes": (
        b"\0\0\0\x10ftypisom\0\0\0\0\0\0\x03\xe8mdat"
    ),
    "was never finished, its index (moov) is missing: fetch it": (
        b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x08mdat"
    ),
}


@pytest.mark.parametrize("said", CONTENTS)
def test_every_content_is_named(tmp_path, said):
    file = tmp_path / "a.mp4"
    file.write_bytes(CONTENTS[said])
    found = describe(file)
    assert said in found
    assert found.isprintable()
    assert is_playlist(file) == ("playlist" in said)


@pytest.mark.parametrize("content", [bytes(range(256)) * 10, b"\xff\xfe\xfd" * 50_000])
def test_what_nobody_knows_is_not_named(tmp_path, content):
    file = tmp_path / "a.mp4"
    file.write_bytes(content)
    assert describe(file) is None
