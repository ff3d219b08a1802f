"""A program that trains as a user would and prints what listened meanwhile, as JSON.

    python -m tests.engine.listening FOLDER WORKERS [--dashboard]

The dashboard is what a search with several workers starts besides.

A program of its own, since the cluster of the other tests is started in another way.
"""

import json
import sys
import threading
from pathlib import Path

import psutil

from msvqa.engine.cluster import connected
from msvqa.train import train
from tests.tiny import make_recipe


def watch(seen: dict[str, set[str]], done: threading.Event) -> None:
    """Collect the addresses that this process and its children listen on."""
    while not done.wait(0.2):
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                name, connections = process.name(), process.net_connections(kind="inet")
            except psutil.Error:
                continue
            for address in {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}:
                seen.setdefault(address, set()).add(name)


def main() -> None:
    """Train the tiny recipe."""
    folder, workers = Path(sys.argv[1]), sys.argv[2]
    seen: dict[str, set[str]] = {}
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(seen, done))
    watcher.start()
    try:
        with connected(dashboard="--dashboard" in sys.argv):
            train(make_recipe(folder, f"scaling.workers={workers}", "scaling.cpus_per_worker=0.5"))
    finally:
        done.set()
        watcher.join()
    print(json.dumps({address: sorted(names) for address, names in seen.items()}))


if __name__ == "__main__":
    main()
