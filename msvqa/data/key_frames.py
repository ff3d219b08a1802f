"""Key frames: where the decoding of a long video may begin, by what its packets say.

A decoder may begin at a packet if nothing that comes after it refers to what was before. Containers
mark key frames, and that is less: leading pictures of open groups refer to the group before, and
H.264 marks pictures from which a decoder recovers in time. So a start is a key frame at which the
codec forgets all earlier pictures, and which all packets before it are shown before, all after it
after it. What is decoded from there is compared with what the packets announced, frame by frame.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol

import av
import numpy as np

# Legend: n packets in the order of the file, one frame each; k of them starts; m frames wanted.

CONTAINERS = ("mov", "matroska")
"""Containers, by the first of FFmpeg's names, that keep the time of every packet: MP4, MOV, MKV,
WebM."""
FORGETFUL = ("mpeg4", "mpeg2video", "vp9", "av1")
"""Codecs whose key frames forget all earlier pictures, but for leading ones, which times show."""
WORTHWHILE = 0.5
"""Where key frames lead to the frames wanted by decoding less than this part of all."""
H264_REFRESH, HEVC_RANDOM_ACCESS = (5,), range(16, 22)
"""Types of the units with which a decoder may begin (ITU-T H.264 and H.265, table 7-1 in both)."""
FORBIDDEN_BIT = 0x80
"""Of the first byte of a unit, which is 0 in what an encoder has written (7.3.1 in both)."""


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """Times of all packets of a video, and those at which decoding may begin."""

    pts: np.ndarray
    """int64 (n,), in units of the stream, each another one"""
    starts: np.ndarray
    """int64 (k,) numbers of packets; since none is shown out of turn, also numbers of frames"""

    @cached_property
    def shown(self) -> np.ndarray:
        """Times of the frames in the order in which they are shown, int64 (n,)."""
        return np.sort(self.pts)

    def times(self, unit_s: Fraction) -> list[float]:
        """Return seconds of the frames (n,), as PyAV gives them of decoded ones."""
        return [pts * unit_s.numerator / unit_s.denominator for pts in self.shown.tolist()]

    def runs(self, wanted: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Return starts with the wanted frames that are decoded from each, in order.

        A run goes on to the next wanted frame unless a later start lies on the way.

        Args:
            wanted: numbers of frames (m,), ascending.
        """
        found: list[tuple[int, list[int]]] = []
        for number in wanted:
            start = int(self.starts[np.searchsorted(self.starts, number, side="right") - 1])
            if found and start <= found[-1][1][-1] + 1:
                found[-1][1].append(number)
            else:
                found.append((start, [number]))
        return found

    def cost(self, wanted: Sequence[int]) -> int:
        """Return how many frames are decoded to reach some of them."""
        return sum(numbers[-1] + 1 - start for start, numbers in self.runs(wanted))


class PacketScan:
    """Notes what an index needs of the packets of a stream, one after another."""

    def __init__(self, stream: av.VideoStream, looks_inside: bool = False) -> None:
        """Prepare for a stream.

        Args:
            stream: the packets' own.
            looks_inside: also whether the units of a packet fill it, which damage may change.
        """
        self._looks_inside = looks_inside
        context = stream.codec_context
        self._codec = context.codec.canonical_name
        self._record = bytes(context.extradata or b"")
        self._times: list[int | None] = []
        self._may_begin: list[bool] = []
        self._is_plain = True

    def note(self, packet: Any) -> None:
        """Take the next packet that holds a frame."""
        self._times.append(packet.pts)
        self._is_plain &= not (packet.is_discard or packet.is_corrupt)
        if self._looks_inside:
            self._is_plain &= self._is_whole(packet)
        self._may_begin.append(packet.is_keyframe and self._forgets(packet))

    def index(self) -> PacketIndex | None:
        """Return the index, or None where only decoding shows which frames there are."""
        if not self._times or not self._is_plain or None in self._times:
            return None
        pts = np.array(self._times, dtype=np.int64)
        if len(np.unique(pts)) < len(pts):
            return None
        before = np.concatenate([pts[:1] - 1, np.maximum.accumulate(pts)[:-1]])  # (n,)
        after = np.minimum.accumulate(pts[::-1])[::-1]  # (n,)
        in_turn = (before < pts) & (pts == after)
        starts = np.flatnonzero(in_turn & np.array(self._may_begin))
        return PacketIndex(pts, starts) if starts.tolist()[:1] == [0] else None

    def _forgets(self, packet: Any) -> bool:
        """Whether a key frame renews all that a decoder knows of pictures."""
        if self._codec in FORGETFUL:
            return True
        if not self._length_size:
            return False
        firsts = (first for first, _ in _units(bytes(packet), self._length_size))
        if self._codec == "h264":
            return any(first & 31 in H264_REFRESH for first in firsts)
        return any(first >> 1 & 63 in HEVC_RANDOM_ACCESS for first in firsts)

    def _is_whole(self, packet: Any) -> bool:
        """Whether the units of a packet fill it to its end, and each begins as units do."""
        if not self._length_size:
            return True
        units = [*_units(bytes(packet), self._length_size)]
        is_filled = bool(units) and units[-1][1] == packet.size
        return is_filled and not any(first & FORBIDDEN_BIT for first, _ in units)

    @cached_property
    def _length_size(self) -> int:
        """Bytes of the length before each unit of a packet; 0 where there are no such units."""
        record = self._record
        # Units that are parted by marks, and not by lengths, are rare in these containers.
        if len(record) < 23 or record[0] != 1:
            return 0
        places = {"h264": 4, "hevc": 21}
        return 1 + (record[places[self._codec]] & 3) if self._codec in places else 0


def _units(content: bytes, size: int) -> Iterator[tuple[int, int]]:
    """Yield the first byte of each unit of a packet, whose length stands before it, and its end."""
    place = 0
    while place + size < len(content):
        first = content[place + size]
        place += size + int.from_bytes(content[place : place + size], "big")
        yield first, place


class AnnouncedOtherwise(Exception):
    """Decoding from a key frame gave something else than the packets had announced."""


class Picker(Protocol):
    """Reads single frames of a video whose packets say which there are."""

    index: PacketIndex

    def pays(self, wanted: Sequence[int]) -> bool:
        """Return whether to read frames of numbers (m,), ascending, costs less than to read all."""

    def pick(self, wanted: Sequence[int]) -> Iterator[Any]:
        """Yield the frames of numbers (m,), ascending.

        Raises:
            AnnouncedOtherwise: only decoding from the first frame on gives these frames.
        """


class KeyFrames:
    """Reads single frames of a video, each from the start before it."""

    def __init__(
        self, container: av.container.InputContainer, stream: av.VideoStream, index: PacketIndex
    ) -> None:
        self._container, self.stream, self.index = container, stream, index

    def pays(self, wanted: Sequence[int]) -> bool:
        """Return whether few frames are decoded on the way to those of numbers (m,), ascending."""
        return self.index.cost(wanted) <= WORTHWHILE * len(self.index.pts)

    def pick(self, wanted: Sequence[int]) -> Iterator[av.VideoFrame]:
        """Yield the frames of numbers (m,), ascending.

        Raises:
            AnnouncedOtherwise: only decoding from the first frame on gives these frames.
        """
        for start, numbers in self.index.runs(wanted):
            left = set(numbers)
            for number, frame in self._decoded_from(start):
                if number in left:
                    yield frame
                if number == numbers[-1]:
                    break
            else:
                raise AnnouncedOtherwise(f"the video ends before frame {numbers[-1]}")

    def _decoded_from(self, start: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the frames from a start on with their numbers, while they are as announced."""
        announced = enumerate(self.index.shown[start:].tolist(), start)
        try:
            for frame, (number, time) in zip(self._frames_from(start), announced, strict=False):
                if frame.is_corrupt or frame.pts != time:
                    raise AnnouncedOtherwise(f"frame {number} is another one")
                yield number, frame
        except av.error.FFmpegError as error:
            raise AnnouncedOtherwise(str(error)) from None

    def _frames_from(self, start: int) -> Iterator[av.VideoFrame]:
        self._container.seek(int(self.index.pts[start]), stream=self.stream)
        for packet in self._packets_from(start):
            yield from packet.decode()

    def _packets_from(self, start: int) -> Iterator[Any]:
        """Yield the packets from a start on; a seek may lead to one before it."""
        first = int(self.index.pts[start])
        packets = self._container.demux(self.stream)
        for packet in packets:
            if packet.pts is None or packet.pts > first:
                raise AnnouncedOtherwise(f"no seek leads to frame {start}")
            if packet.pts == first:
                yield packet
                break
        yield from packets


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the packets of a video announce, before anything is decoded."""

    num_frames: int
    """Frames that are to be shown; damage may leave less."""
    key_frames: Picker | None = None
    """Reads single frames; None where only decoding from the first one gives them."""
