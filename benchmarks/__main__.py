"""The benchmark: ratios of times beside their targets, and counts that must be exact.

python -m benchmarks [ID ...] [--profile cpu|long|gpu] [--list] [--rounds N] [--out FOLDER]
    [--questions FILE]

Every ratio compares two ways measured in the same run, shuffled in every round. A whole profile
leaves a dated table and JSON in `benchmarks/results/`; single rows are printed, and written only
where `--out` says so. Exit code 1: a count is wrong, or a row could not be measured.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.rows.table import PROFILES, ROWS, chosen, listed

ROUNDS, LEAST_ROUNDS = 5, 2


def main() -> int:
    """Run the rows that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="rows; all of the profile by default")
    parser.add_argument("--profile", choices=PROFILES, default="cpu")
    parser.add_argument("--list", action="store_true", help="print the table of rows and end")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes: whether rows run")
    parser.add_argument("--out", type=Path, help="folder of table and JSON")
    parser.add_argument(
        "--questions", type=Path, metavar="FILE",
        help="train_qa.json of MSVD-QA, for rows about epochs; without it as many are drawn",
    )  # fmt: skip
    arguments = parser.parse_args()
    if arguments.list:
        sys.stdout.write(listed(ROWS))
        return 0
    if arguments.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds {arguments.rounds}: quartiles need {LEAST_ROUNDS} rounds or more")
    questions = arguments.questions
    if questions is not None and not questions.is_file():
        parser.error(f"--questions {questions}: there is no such file; without it some are drawn")
    try:
        rows = chosen(arguments.ids, arguments.profile)
    except ValueError as error:
        parser.error(str(error))
    if arguments.profile != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # where there is one, encoders would go to it
    # What a row needs is imported only when it is run.
    from benchmarks.instrument import Options, run
    from benchmarks.measure import RESULTS

    whole = not arguments.ids and not arguments.tiny
    out = arguments.out or (RESULTS if whole else None)
    options = Options(arguments.profile, arguments.rounds, arguments.tiny, questions)
    return run(rows, options, out)


if __name__ == "__main__":
    sys.exit(main())
