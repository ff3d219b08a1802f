"""The command `similar`, and what `predict` prints of two videos."""

import argparse
import json
import sys
from collections.abc import Callable
from itertools import islice
from typing import Any

from msvqa.console.streams import takes_all_characters
from msvqa.console.tables import NAMES_SHOWN, print_table, table_of


def add_titles(verb: argparse.ArgumentParser, of: str) -> None:
    """Add the options that say more of videos."""
    verb.add_argument(
        "--title", metavar="TEXT", action="append", default=[], help=f"title {of}; may be repeated"
    )
    verb.add_argument("--on", metavar="NAME", help="evaluation of the recipe whose ids are meant")


def add_similar(add: Callable[..., argparse.ArgumentParser], verbs: Any) -> None:
    """Add the verb `similar`."""
    verb = add(verbs, "similar", _similar, "find the videos that are most alike to one")
    verb.add_argument("path", metavar="RUN", help="run folder that ends with similarity")
    verb.add_argument("video", metavar="VIDEO", help="file, or id of what is searched")
    verb.add_argument(
        "--in", dest="folder", metavar="DIR",
        help="folder with embeddings.parquet, or with files to embed",
    )  # fmt: skip
    verb.add_argument("--on", metavar="NAME", help="search an evaluation of the recipe instead")
    verb.add_argument("--split", metavar="SPLIT", help="of that evaluation, for example test")
    verb.add_argument("--top", metavar="K", type=_count, default=10, help="how many (10)")
    verb.add_argument("--title", metavar="TEXT", help="title of a VIDEO that is a file")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(is_answer=True)


def print_compared(cosine: float, videos: tuple[str, str], arguments: argparse.Namespace) -> None:
    """Print how alike two videos are."""
    if arguments.json:
        _print_json({"run": arguments.path, "videos": videos, "cosine": cosine})
        return
    print(f"cosine {cosine:.4f}  [{videos[0]}, {videos[1]}, {arguments.path}]")


def _similar(arguments: argparse.Namespace) -> int:
    from msvqa.similar import Sought, similar

    sought = Sought(
        folder=arguments.folder, on=arguments.on, split=arguments.split, title=arguments.title,
        top=arguments.top,
    )  # fmt: skip
    found = similar(arguments.path, arguments.video, sought)
    if arguments.json:
        near = [
            {"id": name, "cosine": cosine}
            for name, cosine in zip(found.ids, found.cosines, strict=True)
        ]
        content = {"run": arguments.path, "video": arguments.video, "searched": found.searched}
        _print_json({**content, "nearest": near, "bad": dict(found.bad)})
        return 0
    table = table_of("video", "cosine")
    for name, cosine in zip(found.ids, found.cosines, strict=True):
        table.add_row(name, f"{cosine:.4f}")
    print_table(table, f"Most alike to {arguments.video} of {found.searched}  [{arguments.path}]")
    if found.bad:
        print(f"{len(found.bad)} files could not be embedded:")
        for name, why in islice(found.bad.items(), NAMES_SHOWN):
            print(f"  {name}: {why}")
        if len(found.bad) > NAMES_SHOWN:
            print(f"  and {len(found.bad) - NAMES_SHOWN} more; --json lists all")
    return 0


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=not takes_all_characters(sys.stdout)))


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return number
