"""B1 to B4: how long `--help` takes, and a command until the first step of its first stages."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from benchmarks.first_step import Seconds
from benchmarks.measure import Fact, Ratio, ratio
from benchmarks.rows.setting import Finding, Setting
from msvqa.data.datasets.synthetic import generate
from msvqa.engine import cluster
from tests.tiny import VIDEOS, raw_recipe

OWN = {
    # Where nothing is said a bare start of Ray leaves a token in the user's home.
    "RAY_AUTH_MODE": "disabled",
    # Its name is Ray's; so a cluster that is on loopback alone is also found there.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
LONGEST_S = 300
MOST_ROUNDS = 3
"""Each takes most of a minute."""


def answering(setting: Setting) -> list[Finding]:
    """Return B1: CPU seconds until `msvqa --help` has answered."""
    commands = {"help": ["-m", "msvqa", "--help"], "Python alone": ["-c", ""]}
    costs = setting.measure(
        {
            name: partial(subprocess.run, [sys.executable, *words], check=True, capture_output=True)
            for name, words in commands.items()
        },
        _of_ended_children,
    )
    costs["a second"] = [1.0] * len(costs["help"])
    return [
        ratio("B1 CPU seconds of msvqa --help", costs, "help", "a second", "<= 0.3"),
        Fact("B1 CPU seconds of Python alone", f"{statistics.median(costs['Python alone']):.3f}"),
    ]


def _of_ended_children() -> float:
    """Return the CPU seconds of all children that have ended."""
    used = os.times()
    return used.children_user + used.children_system


def first_steps(setting: Setting) -> list[Finding]:
    """Return B2 to B4: seconds until first steps over those until a bare trainer of Ray runs."""
    setting = replace(setting, rounds=min(setting.rounds, MOST_ROUNDS))
    generate(setting.folder / "data", videos=VIDEOS)
    cold = _compared(setting, lambda number: setting.folder / f"cold-{number}")
    with cluster.connected():
        warm = _compared(setting, lambda number: setting.folder / "warm", _address())
    stages = {
        name: [seconds[name] for seconds in cold["ours"]]
        for name in ("first stage", "second stage")
    }
    return [
        _until_the_first_step("B2 cold", cold, "<= 3"),
        _until_the_first_step("B3 warm", warm, "<= 1.5"),
        ratio("B4 second stage / first", stages, "second stage", "first stage", "<= 1.5"),
        *_parts("B2 cold", cold),
        *_parts("B3 warm", warm),
    ]


Found = dict[str, list[Seconds]]
"""What both ways said in every round."""


def _compared(setting: Setting, place: Callable[[int], Path], address: str = "") -> Found:
    """Train by a command, and start a bare trainer, in every round after a warm-up.

    Args:
        setting: its folder has data.
        place: of what the command makes, by the number of the round.
        address: cluster to join; empty: each starts one.
    """
    found: Found = {"ours": [], "bare": []}
    environment = {**os.environ, **OWN, "RAY_ADDRESS": address or "local"}

    def run(way: str, *words: str) -> None:
        command = [sys.executable, "-m", "benchmarks.first_step", *words]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, env=environment, timeout=LONGEST_S
        )
        found[way].append(json.loads(done.stdout.splitlines()[-1]))

    def ours() -> None:
        number = len(found["ours"])
        run("ours", str(_recipe(setting, place(number), f"run-{number}")))

    setting.measure(
        {"ours": ours, "bare": lambda: run("bare", "--plain", str(setting.folder))},
        time.perf_counter,
    )
    return {way: seconds[1:] for way, seconds in found.items()}


def _recipe(setting: Setting, place: Path, name: str) -> Path:
    """Write a recipe of two stages that log every step, beside data of its own."""
    shutil.copytree(setting.folder / "data", place / "data", dirs_exist_ok=True)
    raw = raw_recipe(place) | {"name": name}
    raw["stages"] = [{**stage, "log_every_steps": 1} for stage in raw["stages"]]
    file = place / f"{name}.yaml"
    file.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return file


def _until_the_first_step(name: str, found: Found, target: str) -> Ratio:
    costs = {way: [one["whole"] for one in seconds] for way, seconds in found.items()}
    return ratio(
        f"{name}: command to first step / bare trainer of Ray", costs, "ours", "bare", target
    )


def _parts(name: str, found: Found) -> list[Fact]:
    """Return the median seconds of each part of a command, and of a bare trainer."""
    ours = {f"{name}, s: {part}": [one[part] for one in found["ours"]] for part in found["ours"][0]}
    bare = {f"{name}, s: bare trainer": [one["whole"] for one in found["bare"]]}
    return [
        Fact(what, f"{statistics.median(values):.2f}") for what, values in (ours | bare).items()
    ]


def _address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)
