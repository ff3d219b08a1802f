"""What a file really is, by its first bytes, where downloads and copies went wrong.

Whatever was wanted (weights, word vectors, features, videos): the same few things lie in its place.
"""

import re

START_BYTES = 1024
"""How much of a file's beginning `stand_in` looks at."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
WEB_PAGE = re.compile(rb"<!doctype html|<html|<head", re.IGNORECASE)
ERROR_PAGE = re.compile(rb"<\?xml[^>]*\?>\s*<(Error|html)", re.IGNORECASE)
WHITE_SPACE = b"\xef\xbb\xbf \t\r\n"


def stand_in(start: bytes) -> str | None:
    """Return what lies in the place of a wanted file, and what to do; None for anything else.

    Args:
        start: the first `START_BYTES` of the file, fewer only where it has fewer.

    Returns:
        The rest of a sentence that begins with the file's name.
    """
    if not start:
        return "is empty (0 bytes): fetch it again"
    if start.startswith(LFS_POINTER):
        return "is a pointer of Git LFS, not the file itself: fetch that with `git lfs pull`"
    text = start.lstrip(WHITE_SPACE)
    if WEB_PAGE.match(text) or ERROR_PAGE.match(text):
        return (
            "is a web page, not the file itself: open it in a text editor to see what the server "
            "said (often: sign in, or confirm the download), and fetch the file again"
        )
    if len(start) >= 64 and not any(start):
        return "begins with zeros: its download or copy was not finished, fetch it again"
    return None
