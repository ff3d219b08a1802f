"""What the back end nvdec needs of a machine: torchcodec, FFmpeg's libraries, a GPU, its driver."""

import ctypes
import importlib.util
from functools import cache
from importlib import metadata

LIBRARY = "torchcodec"
LEAST_VERSION = (0, 17)
"""Earlier ones give wrong times to frames of VP9."""
INSTEAD = "or use the decoder pyav"


@cache
def lacking(device: str = "cuda") -> str:
    """Return what this machine lacks for the back end, and what to do; or nothing.

    Args:
        device: `cuda`, or `cpu` for what is needed of torchcodec alone.
    """
    if importlib.util.find_spec(LIBRARY) is None:
        return f"torchcodec is not installed: pip install 'msvqa[nvdec]', {INSTEAD}"
    version = metadata.version(LIBRARY)
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_VERSION:
        return f"torchcodec {version} is too old: pip install 'msvqa[nvdec]', {INSTEAD}"
    try:
        import torchcodec

        major: int | None = torchcodec.ffmpeg_major_version
    except (ImportError, RuntimeError, OSError):
        major = None
    if major is None:
        return (
            f"torchcodec {version} finds no libraries of FFmpeg (apt install ffmpeg) or was made "
            f"for another torch or CUDA than is installed; {INSTEAD}"
        )
    return _gpu_lacking() if device == "cuda" else ""


def _gpu_lacking() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"torch finds no GPU: use a machine that has one, {INSTEAD}"
    try:
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError:
        return (
            "the video part of NVIDIA's driver (libnvcuvid.so.1) is not there: in a container set "
            f"NVIDIA_DRIVER_CAPABILITIES=compute,utility,video, {INSTEAD}"
        )
    return ""
