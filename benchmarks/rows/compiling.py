"""Modules that rows compile, as recipes do; at tiny size they are traced alone, which is quick."""

from torch import nn

from benchmarks.measure import Fact
from benchmarks.rows.setting import Finding, Setting
from msvqa.compilation import compile_forward, lacking


def hindrance(setting: Setting) -> str:
    """Return what this machine lacks to compile, or nothing."""
    return "" if setting.is_tiny else lacking(setting.device.type)


def compile_for(setting: Setting, module: nn.Module) -> None:
    """Have the calls of a module compiled; the first one takes minutes.

    At tiny size it is traced, and then runs as it is: all is done but the making of kernels, which
    takes longest, and the tracing of the gradients.
    """
    if setting.is_tiny:
        module.compile(backend="eager")
    else:
        compile_forward(module, "the benchmark")


def left_out(row: str, setting: Setting) -> list[Finding]:
    """Return a fact where nothing can be compiled: a row's identifier, and why."""
    problem = hindrance(setting)
    return [Fact(f"{row} compiled", f"left out: {problem}")] if problem else []
