"""Ray job: read the annotations of a data set.

    ray job submit --working-dir . -- python ray_jobs/prepare.py msvd_qa --root DIR --out DIR

The words after the file are those of `msvqa prepare`. A job works in a throw-away copy of the
working directory: give absolute paths that all nodes share.
"""

import sys

from msvqa.cli import run

if __name__ == "__main__":
    run(["prepare", *sys.argv[1:]])
