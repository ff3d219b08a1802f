"""Feature files in the layout of DualVGR that show the answers of every video, drawn from a seed.

python -m benchmarks.synthetic_features --root data/msvd-qa --out features.h5 --width 256

Every answer has two random codes, one for frames and one for clips, that depend on the seed and the
answer alone. An answer of a video is visible in about half of its clips; a clip is the sum of the
codes that are visible in it, and noise. So the features say what there is in the video, in every
split alike, and nothing of which question asks for what: a model that reads them generalises to
videos it has never seen, and one that does not is as good as the text alone.
"""

import argparse
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from msvqa.data.dataset import open_dataset
from msvqa.data.features import APPEARANCE, IDS, MOTION, check_ids, hdf5_paths
from msvqa.recipe import DataConfig, parse_data

# Legend: C clips, F frames per clip, D width, K answers of a video.


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """Shapes of the features, and how well the answers can be seen in them."""

    num_clips: int = 8
    frames_per_clip: int = 16
    appearance_width: int = 2048
    motion_width: int = 2048
    dtype: str = "float32"
    visible: float = 0.5
    """Probability that an answer is visible in a clip"""
    strength: float = 0.35
    """Standard deviation of a code's numbers"""
    noise: float = 0.5
    """Standard deviation of the noise, of a clip and of a frame"""
    seed: int = 0

    def codes(self, answers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the codes of answers for frames and for clips, both (K, D)."""
        both = np.stack([self._code(answer) for answer in answers])
        return both[:, : self.appearance_width], both[:, self.appearance_width :]

    def video(self, video_id: str, counts: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return appearance (C, F, D) and motion (C, D) of a video.

        Args:
            video_id: decides the noise.
            counts: how often each answer is that of a question about the video.
        """
        generator = np.random.default_rng([self.seed, zlib.crc32(video_id.encode())])
        answers = sorted(counts)
        weight = np.sqrt([counts[answer] for answer in answers])
        seen = generator.random((self.num_clips, len(answers))) < self.visible
        seen[generator.integers(self.num_clips, size=len(answers)), np.arange(len(answers))] = True
        for_frames, for_clips = self.codes(answers)
        clips = (seen * weight) @ for_frames  # (C, D)
        shape = (self.num_clips, self.frames_per_clip, self.appearance_width)
        frames = clips[:, None] + self.noise * generator.standard_normal(shape)  # (C, F, D)
        motion = (seen * weight) @ for_clips  # (C, D)
        motion += self.noise * generator.standard_normal(motion.shape)
        return frames.astype(self.dtype), motion.astype(self.dtype)

    def _code(self, answer: str) -> np.ndarray:
        return _code(self.seed, answer, self.appearance_width + self.motion_width) * self.strength


@lru_cache(maxsize=4096)
def _code(seed: int, answer: str, width: int) -> np.ndarray:
    generator = np.random.default_rng([seed, zlib.crc32(answer.encode()), len(answer)])
    return generator.standard_normal(width).astype(np.float32)


def answers_of_videos(data: DataConfig) -> dict[str, Counter[str]]:
    """Return how often each answer is given about each video, over all splits."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in open_dataset(data).read().rows:
        found[row.video_id][row.answer] += 1
    return dict(found)


def write(data: DataConfig, file: Path, synthesis: Synthesis) -> tuple[Path, Path]:
    """Write the two feature files of a data set, one video at a time; return their paths."""
    answers = answers_of_videos(data)
    check_ids(answers)
    # In no order, as the files of the reference are: rows must be found by their ids.
    order = np.random.default_rng(synthesis.seed).permutation(sorted(answers, key=int)).tolist()
    clips, frames = synthesis.num_clips, synthesis.frames_per_clip
    shapes = ((clips, frames, synthesis.appearance_width), (clips, synthesis.motion_width))
    paths = hdf5_paths(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(paths[0], "w") as appearance, h5py.File(paths[1], "w") as motion:
        rows = [
            opened.create_dataset(name, (len(order), *shape), synthesis.dtype)
            for opened, name, shape in zip(
                (appearance, motion), (APPEARANCE, MOTION), shapes, strict=True
            )
        ]
        for number, video in enumerate(order):
            arrays = synthesis.video(video, answers[video])
            for target, array in zip(rows, arrays, strict=True):
                target[number] = array
        for opened in (appearance, motion):
            opened.create_dataset(IDS, data=np.array(order, dtype=np.int64))
    return paths


def main() -> int:
    """Write the files that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic_features")
    parser.add_argument("--data", default="msvd_qa", help="data set (default: %(default)s)")
    parser.add_argument("--root", required=True, help="folder of its annotations")
    parser.add_argument("--out", type=Path, required=True, help="FILE.h5: FILE_motion_feat.h5 …")
    parser.add_argument("--width", type=int, default=2048, help="of frames and clips (2048)")
    parser.add_argument("--num-clips", type=int, default=8)
    parser.add_argument("--frames-per-clip", type=int, default=16)
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    synthesis = Synthesis(
        num_clips=arguments.num_clips,
        frames_per_clip=arguments.frames_per_clip,
        appearance_width=arguments.width,
        motion_width=arguments.width,
        dtype=arguments.dtype,
        seed=arguments.seed,
    )
    for path in write(parse_data(arguments.data, root=arguments.root), arguments.out, synthesis):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
