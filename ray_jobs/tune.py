"""Ray job: search over fields of a recipe, or continue a search.

    ray job submit --working-dir . -- python ray_jobs/tune.py RECIPE SPACE runs=DIR

The words after the file are those of `msvqa tune`. A job works in a throw-away copy of the
working directory: give absolute paths that all nodes share.
"""

import sys

from msvqa.cli import run

if __name__ == "__main__":
    run(["tune", *sys.argv[1:]])
