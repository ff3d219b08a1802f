"""A small root of MVBench with its media, drawn once."""

import json
import shutil

import pytest

from msvqa.mvbench.drawing import write_media


@pytest.fixture(scope="session")
def drawn(golden, tmp_path_factory):
    """The recorded small root with its media; not to be changed."""
    root = tmp_path_factory.mktemp("mvbench") / "mini"
    shutil.copytree(golden / "mvbench" / "mini", root, copy_function=shutil.copyfile)
    for path in (root, root / "json"):
        path.chmod(0o755)
    write_media(root, json.loads((root / "manifest.json").read_text()))
    return root


@pytest.fixture
def mini(drawn, tmp_path):
    """A copy of it that may be changed."""
    return shutil.copytree(drawn, tmp_path / "mini")
