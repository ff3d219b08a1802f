"""Ray job: decode every video once, on all nodes.

    ray job submit --working-dir . -- python ray_jobs/extract.py RECIPE data.root=DIR

The words after the file are those of `msvqa extract`. A job works in a throw-away copy of the
working directory: give absolute paths that all nodes share.
"""

import sys

from msvqa.cli import run

if __name__ == "__main__":
    run(["extract", *sys.argv[1:]])
