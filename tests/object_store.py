"""A real S3-compatible server on loopback, with what a process must know to use it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer
from pyarrow import fs

BUCKET = "bucket"


class Downloads(logging.Handler):
    """Counts what the server was asked for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name_of_file, self.count = name, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count one line of the server's log."""
        line = record.getMessage()
        self.count += "GET " in line and f"/{self.name_of_file} " in line


@contextmanager
def downloads(name: str) -> Iterator[Downloads]:
    """Count how often a file of this name is downloaded from the server of this process."""
    log, counter = logging.getLogger("werkzeug"), Downloads(name)
    level = log.level
    log.addHandler(counter)
    log.setLevel(logging.INFO)
    try:
        yield counter
    finally:
        log.setLevel(level)
        log.removeHandler(counter)


@contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """Run a server for the block; yield the environment that leads to it and to no other."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        store, _ = fs.FileSystem.from_uri(f"s3://{BUCKET}?allow_bucket_creation=true")
        store.create_dir(BUCKET)
        yield environment
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()
