"""Modules compiled by PyTorch: faster kernels, after minutes of making them.

https://docs.pytorch.org/docs/stable/generated/torch.compile.html
"""

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from msvqa.errors import PackageError

if TYPE_CHECKING:
    from torch import nn


def lacking(device: str) -> str:
    """Return what this machine lacks to compile for a device type, and what to do; or nothing."""
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "there is no triton, which compiles for GPUs: pip install triton, or compile=false"
    # As PyTorch looks for it; of triton, too, what starts its kernels is compiled by one.
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return (
            f"there is no C++ compiler {compiler!r}: install one (apt install g++), name another "
            "one in CXX, or set compile=false"
        )
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if not header.is_file():
        return (
            f"the C++ compiler needs {header}: install the headers of Python (apt install "
            "python3-dev), or set compile=false"
        )
    return ""


def compile_forward(module: "nn.Module", what: str) -> None:
    """Have the calls of a module compiled when they first come; names of weights stay.

    Args:
        module: on its device.
        what: for the message.

    Raises:
        PackageError: this machine cannot.
    """
    device = next(module.parameters()).device.type
    if problem := lacking(device):
        raise PackageError(f"{what}: {problem}")
    module.compile()
