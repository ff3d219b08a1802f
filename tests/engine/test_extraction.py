"""The store entry of one video: there is one in time, whatever the file is like."""

import hashlib
import os
import sys

import pytest

from msvqa.data.medium import Medium
from msvqa.data.processors.clips import ClipExtractor
from msvqa.recipe import ClipsConfig
from tests import barcode_video
from tests.stalled import stalled

CLIPS = ClipsConfig(num_clips=2, frames_per_clip=4, size_px=32, timeout_s=2.0)


@pytest.fixture(scope="module")
def extractor():
    extractor = ClipExtractor(CLIPS)
    yield extractor
    extractor.close()


def facts_of(file):
    content = file.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="it takes the leases of Linux")
def test_a_file_whose_reading_does_not_return_costs_its_time(extractor, tmp_path):
    file = barcode_video.write(tmp_path / "1.avi", 20)
    with stalled(file):
        entry = extractor.extract(Medium("1", str(file)))
    assert entry.outcome == "timeout"
    assert entry.error == f"{file}: cannot be read to its end within 2 s; does its disk answer?"
    assert entry.facts == {"timeout_s": 2.0}
    again = extractor.extract(Medium("1", str(file)))
    assert (again.outcome, again.facts["num_frames"]) == ("ok", 20)
    assert again.facts.items() >= facts_of(file).items()


def test_a_bad_file_is_described_too(extractor, tmp_path):
    file = tmp_path / "bad.avi"
    file.write_bytes(b"no video")
    entry = extractor.extract(Medium("bad", str(file)))
    assert entry.outcome == "unreadable"
    assert entry.facts == facts_of(file)


def test_a_pipe_is_no_video_and_is_not_waited_for(extractor, tmp_path):
    pipe = tmp_path / "pipe.avi"
    os.mkfifo(pipe)
    entry = extractor.extract(Medium("pipe", str(pipe)))
    assert (entry.outcome, entry.facts) == ("unreadable", {})
    assert entry.error == f"{pipe}: not a regular file"
