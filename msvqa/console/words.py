"""The parser of a command's words, with names among them that start with a dash."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

DASHED = (
    "{names}: no such option. A name or a text that starts with dashes goes after the other "
    "words, behind --, or is written ./{name} (of a file); the value of an option is joined to "
    "it: --data={name}"
)


class Parser(argparse.ArgumentParser):
    """Takes a word with one dash for a name: all options but -h have two, and MSVD has such files.

    A word with two dashes that is no option is refused with what to do.
    """

    words: Sequence[str] = ()
    """What was given, all parsers of a command have the same."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and remember the words for a message."""
        if args is not None:
            self.words = list(args)
        return super().parse_known_args(args, namespace)

    def _parse_optional(self, arg_string: str) -> Any:
        """Return None for what is no option."""
        if arg_string.startswith("-") and not arg_string.startswith("--") and arg_string != "-h":
            return None
        return super()._parse_optional(arg_string)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the words, and end."""
        unknown = [word for word in self.words if self._is_unknown(word)]
        if unknown:
            names = " ".join(unknown)
            message = f"{message}\n{DASHED.format(names=names, name=unknown[0])}"
        super().error(message)

    def _is_unknown(self, word: str) -> bool:
        """Whether a word looks like an option of this or an inner parser and is none."""
        name = word.partition("=")[0]
        options = list(_options(self))
        return (
            name not in ("--", "")
            and name.startswith("--")
            and not any(option.startswith(name) for option in options)
        )


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action.choices, dict):
            for inner in action.choices.values():
                yield from _options(inner)
