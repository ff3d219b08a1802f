"""Ray job: train all stages of a recipe, or continue its run.

    ray job submit --working-dir . -- python ray_jobs/train.py RECIPE data.root=DIR runs=DIR

The words after the file are those of `msvqa train`. A job works in a throw-away copy of the
working directory: give absolute paths that all nodes share.
"""

import sys

from msvqa.cli import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])
