"""Jobs of a Ray cluster: each works in a copy of the working directory, which ends with it."""

from collections.abc import Mapping
from pathlib import Path

from msvqa.errors import ClusterError

IN_A_COPY = "/runtime_resources/working_dir_files/"
"""Part of the path of every copy that Ray makes of a job's working directory."""


def refuse_lost(paths: Mapping[str, str | Path]) -> None:
    """Refuse places that do not outlive the job: its copy of the working directory is thrown away.

    Args:
        paths: by the key of the recipe, or the option, that names them.

    Raises:
        ClusterError: names them, with what to give instead.
    """
    lost = {key: path for key, path in paths.items() if IN_A_COPY in str(path)}
    if lost:
        places = ", ".join(f"{key}={path}" for key, path in lost.items())
        raise ClusterError(
            f"a job works in a copy of the working directory, which is thrown away with {places}: "
            f"give absolute paths that all nodes share, for example {next(iter(lost))}=/shared/..."
        )
