"""Ray job: answer every question of a split.

    ray job submit --working-dir . -- python ray_jobs/evaluate.py RUN --split test

The words after the file are those of `msvqa evaluate`. A job works in a throw-away copy of the
working directory: give absolute paths that all nodes share.
"""

import sys

from msvqa.cli import run

if __name__ == "__main__":
    run(["evaluate", *sys.argv[1:]])
