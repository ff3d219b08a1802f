#!/usr/bin/env bash
# Submit a file of ray_jobs/ to a Ray cluster, follow its logs and exit with its exit code.
#
#   ray_jobs/submit.sh train configs/quickstart.yaml data.root=/shared/synthetic \
#       data.prepared=/shared/prepared runs=/shared/runs
#
# The first word names the file, the others are those of `msvqa`. Environment:
#   RAY_API_SERVER_ADDRESS  server that takes jobs (http://127.0.0.1:8265: here, or a tunnel's end)
#   RAY_AUTH_MODE           token (default; read from RAY_AUTH_TOKEN or ~/.ray/auth_token) or disabled
#   MSVQA_RUNTIME_ENV       more of Ray's runtime environment, as JSON: {"pip": [...]}
#   MSVQA_JOB_ID            name of the job (verb and time)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
verb=${1:-}
if [[ ! $verb =~ ^[a-z]+$ || ! -f $root/ray_jobs/$verb.py ]]; then
    verbs=$(cd "$root/ray_jobs" && printf '%s ' *.py)
    echo "usage: ${0##*/} VERB WORD...; VERB is one of ${verbs//.py/}" >&2
    exit 2
fi
shift

export RAY_API_SERVER_ADDRESS=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}
# Without the mode the client sends no token, and the server answers 401.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
export RAY_USAGE_STATS_ENABLED=0

# Ray itself says these three in fifty lines each; the rest is left to it.
python - "$root" <<'EOF'
import json
import logging
import os
import sys
from pathlib import Path

from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE as LIMIT
from ray._private.runtime_env.packaging import _dir_travel, _get_excludes
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

logging.disable(logging.INFO)
HEADERS = 200  # of the archive, for each file; nothing in it is compressed
MIB = 2**20
root, sizes = Path(sys.argv[1]), {}


def note(path: Path) -> None:
    """Note the size of a file that the job takes along."""
    if path.is_file():
        sizes[path.relative_to(root)] = path.stat().st_size + HEADERS


more = json.loads(os.environ.get("MSVQA_RUNTIME_ENV") or "{}").get("excludes", [])
_dir_travel(root, [_get_excludes(root, more)], note, include_gitignore=True)
if sum(sizes.values()) >= LIMIT:
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
    largest = [name for name in largest if sizes[name] >= MIB] or largest
    names = ", ".join(f"{name} ({sizes[name] / MIB:.1f} MiB)" for name in largest)
    print(
        f"error: a job takes its checkout along, and Ray takes at most {LIMIT // MIB} MiB of the "
        f"{sum(sizes.values()) / MIB:.1f} MiB in {root}: move large files to the storage that all "
        f"nodes share, or name them in .rayignore; the largest are {names}",
        file=sys.stderr,
    )
    sys.exit(2)
if os.environ.get("RAY_JOB_SUBMIT_HOOK"):  # it chooses the server
    sys.exit()

address = os.environ["RAY_API_SERVER_ADDRESS"]
try:
    JobSubmissionClient(headers=json.loads(os.environ.get("RAY_JOB_HEADERS") or "null"))
except ConnectionError:
    print(
        f"error: no server that takes jobs answers at {address}: start the cluster, open the "
        "tunnel to its head (docs/cluster.md), or set RAY_API_SERVER_ADDRESS",
        file=sys.stderr,
    )
    sys.exit(2)
except AuthenticationError as refused:
    said = str(refused).splitlines()[0].partition(". ")[0]
    print(
        f"error: {address}: {said}: put the token of the cluster into ~/.ray/auth_token or "
        "RAY_AUTH_TOKEN, or set RAY_AUTH_MODE=disabled where the cluster asks for none",
        file=sys.stderr,
    )
    sys.exit(2)
except (OSError, RuntimeError, ValueError):
    pass
EOF

# What stays behind is listed in .rayignore.
nothing_more='{}'
job=${MSVQA_JOB_ID:-$verb-$(date +%Y%m%d-%H%M%S)-$$}
trap 'echo "The job goes on; to stop it: ray job stop $job" >&2; exit 130' INT
followed=0
ray job submit --submission-id "$job" --working-dir "$root" \
    --runtime-env-json "${MSVQA_RUNTIME_ENV:-$nothing_more}" \
    -- python "ray_jobs/$verb.py" "$@" || followed=$?

# `ray job submit` says 1 for what has failed, else 0; the program's own code tells an error from a
# stop. Of a job that was stopped from outside Ray keeps no code: it has ended by SIGTERM.
python - "$job" "$followed" <<'EOF'
import json
import os
import sys

from ray.job_submission import JobStatus, JobSubmissionClient

headers = json.loads(os.environ.get("RAY_JOB_HEADERS") or "null")
job, code = sys.argv[1], int(sys.argv[2])
try:
    found = JobSubmissionClient(headers=headers).get_job_info(job)
    if found.status == JobStatus.STOPPED:
        code = 143
    elif found.driver_exit_code is not None:
        code = found.driver_exit_code % 256
except (ConnectionError, RuntimeError):  # the job was never taken; why is said above
    pass
sys.exit(code)
EOF
