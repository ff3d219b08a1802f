"""What a file is that is called a video and is none, told from its bytes.

Downloads that fail leave pictures, messages, playlists, archives and halves of files behind, beside
what `msvqa/content.py` knows.
"""

from pathlib import Path

from msvqa.content import START_BYTES, stand_in
from msvqa.data.containers import describe_cut, lacks_index

HEAD_BYTES = 64 * 1024
QUOTED = 60
"""Characters of a text that a message quotes."""

_AGAIN = "fetch it again"
_UNPACK = "unpack it"
_NAMED = "get the videos that it names; no other file is opened for it"
_SIGNATURES = (
    (0, b"\xff\xd8\xff", "a JPEG picture", _AGAIN),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture", _AGAIN),
    (8, b"WEBPVP8", "a WebP picture that does not move", _AGAIN),
    (0, b"PK\x03\x04", "a ZIP archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"%PDF-", "a PDF document", _AGAIN),
)
"""Place of the mark, mark, what the file is, what to do."""
_PLAYLISTS = (
    ("#extm3u", "", "M3U"),
    ("ffconcat version", "", "concat"),
    ("[playlist]", "", "PLS"),
    ("[reference]", "", "ASX"),
    ("<", "<asx", "ASX"),
    ("<", "<smil", "SMIL"),
    ("<", "<mpd", "DASH"),
    ("<", "<smoothstreamingmedia", "Smooth Streaming"),
    ("v=0\n", "", "SDP"),
    ("v=0\r\n", "", "SDP"),
)
"""Texts that name other files to play: how they begin, what stands near the beginning, kind."""
ANNEX = "/annex/objects/"
NEAR = 1000
"""Characters that count as the beginning of a text."""


def describe(path: Path) -> str | None:
    """Say what a file is of which no video can be read, and what to do; None where nobody knows.

    Returns:
        The rest of a sentence that begins with the file's name.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return f"is no video, the file is empty (0 bytes): {_AGAIN}"
    if found := stand_in(head[:START_BYTES]):
        return found
    for place, mark, what, advice in _SIGNATURES:
        if head.startswith(mark, place):
            return f"is {what}, no video: {advice}"
    return _describe_cut(path) or _describe_text(head)


def is_playlist(path: Path) -> bool:
    """Whether a file is a text that names other files to play."""
    with path.open("rb") as file:
        return bool(_playlist(_decode(file.read(HEAD_BYTES))))


def animated_webp_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of a WebP of several pictures; None for all other files."""
    with path.open("rb") as file:
        head = file.read(30)
    if head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8X" or len(head) < 30 or not head[20] & 0x02:
        return None
    width, height = (int.from_bytes(head[start : start + 3], "little") for start in (24, 27))
    return width + 1, height + 1


def _describe_cut(path: Path) -> str | None:
    cut = describe_cut(path)
    facts = ["its index (moov) is missing"] if lacks_index(path) else []
    facts += [cut] if cut else []
    state = "is cut off" if cut else "was never finished"
    return f"{state}, {' and '.join(facts)}: {_AGAIN}" if facts else None


def _describe_text(head: bytes) -> str | None:
    text = _decode(head)
    if kind := _playlist(text):
        return f"is a playlist ({kind}), no video: {_NAMED}"
    if ANNEX in text[:NEAR]:
        return "is a pointer of git-annex, no video: fetch that with `git annex get`"
    if not text or not all(mark.isprintable() or mark.isspace() for mark in text):
        return None
    kind = "XML" if text[0] == "<" else "JSON" if text[0] in "{[" else "text"
    begins = repr(" ".join(text[: 4 * QUOTED].split())[:QUOTED])
    return f"is {kind} that begins with {begins}, no video: {_AGAIN}"


def _playlist(text: str) -> str:
    found = (kind for start, near, kind in _PLAYLISTS if _begins(text, start, near))
    return next(found, "")


def _begins(text: str, start: str, near: str) -> bool:
    beginning = text[:NEAR].lower()
    return beginning.startswith(start) and near in beginning


def _decode(head: bytes) -> str:
    # Bytes of other encodings become control characters: such texts are not quoted.
    return head.decode("utf-8-sig", errors="replace").replace("\ufffd", "\x1a").lstrip()
