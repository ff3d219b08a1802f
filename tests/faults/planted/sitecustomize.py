"""Python imports this in every process that has this folder on its path: a decoder with faults.

`hang*` never returns and holds the interpreter lock, as a native decoder may; `crash*` dies.
"""

import ctypes
import importlib.abc
import importlib.util
import os
import signal
import sys
from pathlib import Path

TARGET = "msvqa.data.video"


class _Planter(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            plant(module)

        spec.loader.exec_module = exec_module
        return spec


def plant(module):
    original = module.open_reader

    def faulty(path, *arguments, **options):
        if Path(path).name.startswith("hang"):
            ctypes.PyDLL(None).sleep(3600)
        if Path(path).name.startswith("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return original(path, *arguments, **options)

    module.open_reader = faulty


sys.meta_path.insert(0, _Planter())
