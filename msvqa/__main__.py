"""`python -m msvqa` is the `msvqa` command."""

from msvqa.cli import run

if __name__ == "__main__":
    run()
