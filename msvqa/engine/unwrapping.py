"""Errors of worker processes: what is in the wrappers of Ray, and what can be sent through them."""

import pickle
import traceback
from collections.abc import Iterator

from msvqa.errors import ClusterError, MSVQAError, OutOfMemoryError
from msvqa.failures import as_error, first_line


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from, through the wrappers of Ray.

    A wrapper is no cause itself, though Ray gives it the class of its cause: its text is a
    traceback.
    """
    from ray.exceptions import RayTaskError

    while error is not None:
        is_wrapper = isinstance(error, RayTaskError) and isinstance(error.cause, BaseException)
        if not is_wrapper:
            yield error
        inner = getattr(error, "cause", None) or getattr(error, "health_check_failure", None)
        error = (inner if isinstance(inner, BaseException) else None) or error.__cause__


def user_error(*failures: BaseException | None) -> MSVQAError | None:
    """Return what a user can act on among failures and what they came from.

    An error of ours comes first, then what any program may meet, then what befalls processes: of
    several workers one has the reason, and the others only miss it.
    """
    found = [cause for failure in failures for cause in causes(failure)]
    ours = (cause for cause in found if isinstance(cause, MSVQAError))
    told = (error for told in (as_error, _of_ray) for error in map(told, found) if error)
    return next(ours, None) or next(told, None)


def sendable(error: MSVQAError, raised: BaseException) -> MSVQAError:
    """Return an error as it can be sent to another process: itself, or one of the same kind.

    Args:
        error: may be of a class that a recipe brings along, with anything in it.
        raised: what it was found in; `--traceback` shows where that came from.
    """
    # What `add_note` does in newer versions of Python. An exception travels without its frames.
    error.__dict__["__notes__"] = ["".join(traceback.format_exception(raised)).rstrip()]
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        kinds = (kind for kind in type(error).__mro__ if issubclass(kind, MSVQAError))
        ours = next(kind for kind in kinds if kind.__module__ == MSVQAError.__module__)
        return ours.__new__(ours, str(error))
    return error


def _of_ray(error: BaseException) -> MSVQAError | None:
    """Return an error of ours for what befalls the processes of a cluster."""
    from ray import exceptions

    if isinstance(error, (exceptions.OutOfMemoryError, exceptions.ObjectStoreFullError)):
        return OutOfMemoryError(
            f"a machine of the cluster has run out of memory ({first_line(error)}): start fewer "
            "workers (scaling.workers, scaling.data_workers), or lower batch.videos"
        )
    if isinstance(error, exceptions.RuntimeEnvSetupError):
        return ClusterError(
            f"a node cannot make the job's environment ({first_line(error)}): look at the "
            "runtime_env of the job, or install the packages on the nodes"
        )
    dead = (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.NodeDiedError)
    if isinstance(error, dead):
        return ClusterError(
            f"a worker died ({how_it_died(error)}): the same command goes on with what is done. A "
            "worker without a trace was killed, mostly for want of memory"
        )
    lost = (exceptions.GetTimeoutError, exceptions.RpcError, exceptions.LocalRayletDiedError)
    if isinstance(error, (*lost, exceptions.ObjectLostError)):
        return ClusterError(
            f"the Ray cluster has lost a node or does not answer ({first_line(error)}): look at "
            "`ray status`; the same command goes on with what is done"
        )
    return None


def how_it_died(error: BaseException) -> str:
    """Return the line that says why a process died."""
    lines = str(error).strip().splitlines()
    # Where its constructor failed, the rest is the traceback, which ends with the reason.
    return lines[-1] if getattr(error, "actor_init_failed", False) else lines[0]
