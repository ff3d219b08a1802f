"""Real servers of object stores on loopback, with what a process must know to use them."""

import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import HTTPServer
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler, Storage
from moto.server import ThreadedMotoServer
from pyarrow import fs

from msvqa import storage
from msvqa.storage import filesystem

BUCKET = "bucket"


LOGS = [logging.getLogger(name) for name in ("werkzeug", "gcp_storage_emulator")]


class Requests(logging.Handler):
    """What the servers of this process were asked for, one line each."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line of a server's log."""
        self.lines.append(record.getMessage())

    def downloads(self, ending: str) -> int:
        """Count how often files were downloaded whose names end so."""
        # Google's servers give what is known of a file under its bare address.
        ends = [f"{ending}{'?alt=media' * ('/storage/v1/' in line)} " for line in self.lines]
        return sum(
            "GET " in line and end in line for line, end in zip(self.lines, ends, strict=True)
        )


@contextmanager
def requests() -> Iterator[Requests]:
    """Watch what the servers of this process are asked for."""
    watcher, levels = Requests(), [log.level for log in LOGS]
    for log in LOGS:
        log.addHandler(watcher)
        log.setLevel(logging.INFO)
    try:
        yield watcher
    finally:
        for log, level in zip(LOGS, levels, strict=True):
            log.setLevel(level)
            log.removeHandler(watcher)


class S3Server:
    """An S3-compatible server on one port; its content outlives a stop."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        """Answer; again on the same port."""
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        _, self.port = self._server.get_host_and_port()

    def stop(self) -> None:
        """Answer nobody any more."""
        self._server.stop()


@contextmanager
def object_store() -> Iterator[S3Server]:
    """Run an S3-compatible server for the block; the environment leads to it and to no other."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = S3Server()
    environment = {
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        with _environment(environment):
            store, _ = fs.FileSystem.from_uri(f"s3://{BUCKET}?allow_bucket_creation=true")
            store.create_dir(BUCKET)
            yield server
    finally:
        server.stop()


@contextmanager
def google_store() -> Iterator[None]:
    """Run a server of Google Cloud Storage for the block, likewise."""
    storage = Storage(use_memory_fs=True)
    create_bucket(BUCKET, storage)
    server = HTTPServer(("127.0.0.1", 0), partial(RequestHandler, storage))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            account = Path(folder) / "service-account.json"
            account.write_text(json.dumps(_service_account()))
            environment = {
                "GOOGLE_APPLICATION_CREDENTIALS": str(account),
                "CLOUD_STORAGE_EMULATOR_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            }
            with _environment(environment):
                yield
    finally:
        server.shutdown()
        server.server_close()


def _service_account() -> Mapping[str, str]:
    """Make credentials as Google's console gives them: the client signs its own tokens with it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "project_id": "tests",
        "private_key_id": "tests",
        "private_key": pem.decode(),
        "client_email": "tests@tests.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    }


def send(folder: Path, location: str) -> None:
    """Put all files of a folder on the disk into a folder of a server, under the same names."""
    store, root = filesystem(location)
    for file in (path for path in folder.rglob("*") if path.is_file()):
        with store.open_output_stream(f"{root}/{file.relative_to(folder)}") as target:
            target.write(file.read_bytes())


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    # A process has one client for each place: not one that knows an earlier server.
    storage._remote_folder.cache_clear()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


STORES = {"s3": object_store, "gs": google_store}
"""Servers by the schemes of their locations."""
