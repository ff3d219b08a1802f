"""Weight files of every format that holds only tensors, read without running code from them.

The content says the format, not the name: safetensors, the archives that torch writes, and what it
wrote before version 1.6. What surrounds the weights is taken off: keys such as `state_dict`, the
optimizer beside them, `module.` before the names.
"""

import json
import pickle
import re
import shlex
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from msvqa.content import START_BYTES, stand_in
from msvqa.errors import WeightsError

WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module"),
    *("weights", "params", "backbone", "encoder"),
)
"""Keys below which programs keep the weights, the most telling first."""
MAX_WRAPPERS = 4
MEMBERS_SHOWN = 20
PREFIX = re.compile(r"(module\.|_orig_mod\.)+")
"""What DataParallel, DistributedDataParallel and torch.compile put before each name."""
MAX_HEAD_BYTES = 100_000_000
"""Of names and shapes: what safetensors allows."""
MAX_UNPACKED = 4
"""How many times larger than the file its parts may be; torch does not compress them."""
LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
"""Begins what torch wrote before 1.6, after the pickle protocol."""
LEGACY_TAR = ("pickle", "storages", "tensors")
UNSUPPORTED = re.compile(r"GLOBAL (\S+)")


class _Ignored:
    """Stands for a number or setting beside the weights; nothing of its content is kept."""

    def __new__(cls, *_: Any) -> "_Ignored":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


BESIDE: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, f"{package}.{name}")
    for package, names in {
        "numpy": ("dtype", "ndarray"),
        "numpy.core.multiarray": ("scalar", "_reconstruct"),
        "numpy._core.multiarray": ("scalar", "_reconstruct"),
        "numpy.dtypes": ("Float64DType", "Float32DType", "Int64DType", "Int32DType"),
        "argparse": ("Namespace",),
    }.items()
    for name in names
]
"""Objects that often lie beside the weights. None of their code runs."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the weights in a file by name, on the CPU.

    Raises:
        WeightsError: says what the file is instead, and what to do.
    """
    path = Path(path)
    content = _content(path, _start(path))
    state: dict[str, Tensor] = {}
    for name, value in _state_dict(content, path).items():
        short = PREFIX.sub("", str(name), count=1) if PREFIX.match(str(name)) else str(name)
        if short in state:
            raise WeightsError(f"{path} holds {short!r} twice, with and without a prefix")
        state[short] = value
    return state


def _start(path: Path) -> bytes:
    """Return the first bytes of a file that is no obvious stand-in."""
    if path.is_dir():
        raise WeightsError(f"{path} is a folder: name the file of weights in it")
    if not path.exists():
        raise WeightsError(f"{path}: no such weights file")
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from None
    if found := stand_in(start):
        raise WeightsError(f"{path} {found}")
    return start


def _content(path: Path, start: bytes) -> Any:
    try:
        if start[8:9] == b"{" and _head_length(start) <= MAX_HEAD_BYTES:
            return _read_safetensors(path, _head_length(start))
        if start.startswith(b"PK"):
            return _read_archive(path)
        if start.startswith((b"\x80", b"}", b"(", b"]")):
            return _read_pickled(path, start)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damaged content makes torch raise almost anything
        raise WeightsError(f"{path} is damaged: {_reason(error)}") from None
    raise WeightsError(f"{path} {_foreign(path, start)}")


def _head_length(start: bytes) -> int:
    """Return how many bytes of names and shapes follow, as safetensors begins."""
    return int.from_bytes(start[:8], "little")


def _read_safetensors(path: Path, length: int) -> dict[str, Tensor]:
    with path.open("rb") as file:
        file.seek(8)
        head = file.read(length)
    size, wanted = path.stat().st_size, 8 + length
    if len(head) == length:
        parts = [part for name, part in json.loads(head).items() if name != "__metadata__"]
        wanted += max((part["data_offsets"][1] for part in parts), default=0)
    if size < wanted:
        raise WeightsError(_cut(path, size, wanted))
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged: {_reason(error)}") from None


def _read_archive(path: Path) -> Any:
    """Read what torch writes since 1.6."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile:
        raise WeightsError(_cut(path, size)) from None
    names = [entry.filename for entry in entries]
    if any(name.endswith("constants.pkl") for name in names):
        raise WeightsError(
            f"{path} is a TorchScript program, not weights alone: save these with the program that "
            "made it: torch.save(model.state_dict(), FILE)"
        )
    if not any(name.endswith("data.pkl") for name in names):
        shown = ", ".join(names[:3])
        raise WeightsError(f"{path} is a ZIP archive of other files ({shown}): unpack it")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_UNPACKED * size:
        raise WeightsError(
            f"{path} would unpack to {unpacked:,} bytes from {size:,}: that is no file of weights"
        )
    head = sum(entry.file_size for entry in entries if entry.filename.endswith("data.pkl"))
    if head > MAX_HEAD_BYTES:
        raise WeightsError(f"{path} has {head:,} bytes of names: that is no file of weights")
    return _load(path)


def _read_pickled(path: Path, start: bytes) -> Any:
    """Read what torch wrote before 1.6."""
    if LEGACY_MAGIC not in start[:16]:
        raise WeightsError(
            f"{path} is a Python pickle, not what torch.save writes; reading it could run any code "
            "in it: save it with torch.save(state_dict, FILE), in the program that made it"
        )
    return _load(path)


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(BESIDE), warnings.catch_warnings():
            # What torch warns of is no concern of someone who only names a file.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := UNSUPPORTED.search(str(error)):
            raise WeightsError(f"{path} {_objects(found[1])}") from None
        raise
    except (EOFError, RuntimeError) as error:
        if isinstance(error, EOFError) or "unexpected EOF" in str(error):
            raise WeightsError(_cut(path, path.stat().st_size)) from None
        raise


def _objects(name: str) -> str:
    """Return what to do with a file that holds Python objects."""
    return (
        f"holds more than tensors, a Python object ({name.rstrip('.')}), as a model saved whole "
        "does; such objects are not read, since their code would run. In the program that made "
        "the file save its weights alone: torch.save(model.state_dict(), FILE)"
    )


def _foreign(path: Path, start: bytes) -> str:
    """Return what a file is that has none of the formats."""
    if start.startswith(b"\x1f\x8b"):
        return "is compressed (gzip): unpack it"
    if names := _members(path):
        if set(LEGACY_TAR) <= set(names):
            return (
                "has the tar format of torch before 0.1.10, which can run code while it is read. "
                "Only if you trust where it is from, convert it, once: " + _conversion(path)
            )
        return f"is a tar archive of other files ({', '.join(names[:3])}): unpack it"
    if start.startswith(b"\x89HDF"):
        return "is an HDF5 file, as Keras writes it, not weights of torch"
    return f"is not a file of weights: it begins with {start[:16]!r}"


def _members(path: Path) -> list[str]:
    """Return the names of the first members of a tar archive, none where it is none.

    Only of one that is not compressed: of another the whole would be unpacked to see them.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            return [member.name for member in islice(archive, MEMBERS_SHOWN)]
    except tarfile.TarError:
        return []


def _conversion(path: Path) -> str:
    # JSON's double quotes are Python's too, and read well within the shell's single ones.
    old, new = json.dumps(str(path)), json.dumps(f"{path.stem}_converted.pth")
    load = f'torch.load({old}, map_location="cpu", weights_only=False)'
    code = f"import torch; torch.save({load}, {new})"
    return f"python -c {shlex.quote(code)}"


def _cut(path: Path, size: int, wanted: int | None = None) -> str:
    of = f" of {wanted:,}" if wanted else ""
    return f"{path} is cut short: it ends after {size:,}{of} bytes, fetch it again"


def _reason(error: Exception) -> str:
    """Return what torch says is wrong, without its advice, which is to give up safety."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2]
    return text.strip().partition("\n")[0][:200] or type(error).__name__


def _state_dict(content: Any, path: Path) -> Mapping[Any, Tensor]:
    """Return names with tensors, from below the keys that programs put around them."""
    for _ in range(MAX_WRAPPERS):
        if not isinstance(content, Mapping) or not content:
            break
        strange = [str(name) for name, value in content.items() if not _is_weight(value)]
        if not strange:
            return content
        inner = _inner(content)
        if inner is None:
            shown = ", ".join(strange[:5]) + (f" and {len(strange) - 5} more" * (len(strange) > 5))
            raise WeightsError(f"{path} holds values that are not tensors: {shown}")
        content = inner
    raise WeightsError(f"{path} holds no state dict (names with tensors)")


def _inner(content: Mapping[Any, Any]) -> Any:
    mappings = {name: value for name, value in content.items() if isinstance(value, Mapping)}
    named = next((mappings[name] for name in WRAPPERS if name in mappings), None)
    if named is not None:
        return named
    full = [v for v in mappings.values() if v and all(map(_is_weight, v.values()))]
    return full[0] if len(full) == 1 else None


def _is_weight(value: Any) -> bool:
    """Whether it is a tensor with plain numbers."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_meta or value.is_nested)
    )
