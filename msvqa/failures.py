"""What goes wrong with disks, memory and installed packages, as errors that say what to do."""

import errno
import pickle

from msvqa.errors import MSVQAError, OutOfMemoryError, PackageError, StorageError

GOES_ON = "and the same command goes on"
OF_FILES = {
    errno.ENOSPC: f"make room, {GOES_ON}",
    errno.EDQUOT: f"make room, {GOES_ON}",
    errno.EACCES: "give this user the right to it, or name another place",
    errno.EPERM: "give this user the right to it, or name another place",
    errno.EROFS: "name a place that is not read-only",
    errno.ENOENT: "put it there, or name another place",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EMFILE: "raise the limit of open files, for example with `ulimit -n 65536`",
    errno.ENFILE: "this machine has too many open files: end what holds them",
    errno.EAGAIN: "end other programs, or raise the limits of this user (`ulimit -a`)",
}
"""What to do about an error of the operating system, by its number."""
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
"""How native code says so that raises a plain RuntimeError."""


def as_error(error: BaseException) -> MSVQAError | None:
    """Return an error of ours for what any program may meet, and None for what must be a bug."""
    if isinstance(error, MSVQAError):
        return error
    if _is_out_of_memory(error):
        return _out_of_memory(error)
    if isinstance(error, OSError):
        return StorageError(f"{_of_system(error)}: {_advice(error)}")
    if isinstance(error, ImportError):
        return PackageError(
            f"{first_line(error)}: install it, or set PYTHONPATH, on every machine that takes part"
        )
    if isinstance(error, pickle.PicklingError) or _cannot_be_pickled(error):
        return PackageError(
            f"{first_line(error)}, so it cannot travel to another process: in classes that a "
            "recipe names by a dotted path, keep plain data, and no locks, files or lambdas"
        )
    return None


def first_line(error: BaseException) -> str:
    """Return what an error says, without what native libraries add below it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    # torch.OutOfMemoryError is a RuntimeError too, and need not be imported to be told.
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def _out_of_memory(error: BaseException) -> OutOfMemoryError:
    on_gpu = any(part in str(error) for part in ("CUDA", "CUBLAS", "CUDNN"))
    whose, relief = (
        ("the GPU", "set precision: bf16, or give each worker a GPU of its own")
        if on_gpu
        else ("this machine", "lower scaling.workers or scaling.data_workers")
    )
    return OutOfMemoryError(
        f"the memory of {whose} is too small ({first_line(error)}): lower batch.videos or "
        f"evaluation.videos_per_batch, raise batch.accumulate, {relief}, or end other programs"
    )


def _of_system(error: OSError) -> str:
    if error.strerror is None:
        return first_line(error)
    places = [str(name) for name in (error.filename, error.filename2) if name]
    return f"{' -> '.join(places)}: {error.strerror}" if places else error.strerror


def _advice(error: OSError) -> str:
    network = isinstance(error, (ConnectionError, TimeoutError))
    default = f"bring {'the network' if network else 'the storage'} back, {GOES_ON}"
    return OF_FILES.get(error.errno or 0, default)


def _cannot_be_pickled(error: BaseException) -> bool:
    return isinstance(error, (TypeError, AttributeError)) and str(error).lower().startswith(
        ("cannot pickle", "can't pickle", "can't get local object")
    )
