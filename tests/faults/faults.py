"""The faults: each is injected into real processes; what it returns was lost, and must be nothing.

A fault that is survived returns an empty list. One that is not survived raises.
"""

import json
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from msvqa.data.lexicon import Lexicon
from msvqa.data.sampling import sample_clips
from msvqa.data.store import Store
from msvqa.data.text import AnswerList, Vocabulary
from msvqa.engine.checkpoint import Content, Position, newest_checkpoint, save_checkpoint
from msvqa.engine.watchdog import VERDICTS, read_beats
from msvqa.recipe import parse
from msvqa.run import Run
from tests import barcode_video
from tests.faults.bench import STAGE, Bench, Command, shards_of, store_of
from tests.faults.disks import small_disk
from tests.faults.nodes import NODE_FAULTS
from tests.models.small import make_dualvgr
from tests.object_store import BUCKET, object_store
from tests.stalled import stalled
from tests.tiny import raw_recipe

Fault = Callable[[Bench, str], list[str]]
SIZE_PX = 96
PLANTED = str(Path(__file__).parent / "planted")


def _training(bench: Bench, name: str) -> tuple[Path, Command]:
    """Start a training; return it when a checkpoint in the middle of an epoch is whole."""
    recipe = bench.recipe_file(name)
    command = bench.train(recipe)
    command.until(bench.reached(recipe), "step 8")
    return recipe, command


def worker_killed(bench: Bench, name: str) -> list[str]:
    """kill -9 of a training worker in the middle of an epoch: training goes on by itself."""
    recipe, command = _training(bench, name)
    command.training_workers()[-1].kill()
    command.ends_well()
    return _lost_after_resuming(bench, recipe)


def worker_killed_of_a_model_in_pieces(bench: Bench, name: str) -> list[str]:
    """The same where each worker has a piece of the weights (`sharding: fsdp`)."""
    stage = raw_recipe(bench.folder)["stages"][0] | {
        "sharding": "fsdp", "epochs": 8, "checkpoint": {"every_steps": 2, "keep": 3},
    }  # fmt: skip
    whole, recipe = (bench.recipe_file(n, stages=[stage]) for n in (f"{name}-whole", name))
    bench.train(whole).ends_well()
    command = bench.train(recipe)
    command.until(bench.reached(recipe), "step 8")
    command.training_workers()[-1].kill()
    command.ends_well()
    return _lost_after_resuming(bench, recipe, bench.run(whole))


def driver_killed(bench: Bench, name: str) -> list[str]:
    """kill -9 of the driver; the same command at once resumes."""
    recipe, command = _training(bench, name)
    orphans = command.training_workers()
    # Workers outlive the driver for seconds, in which they could finish so short a stage: one of
    # them stands still, so that the other has to wait for it.
    orphans[-1].suspend()
    command.kill()
    resumed = bench.train(recipe)
    resumed.until(lambda: not _is_alive(orphans[0]), "the end of a worker without a driver")
    with suppress(psutil.NoSuchProcess):  # Ray may have killed it
        orphans[-1].resume()
    resumed.ends_well()
    return _lost_after_resuming(bench, recipe) + still_running(orphans)


def interrupted(bench: Bench, name: str) -> list[str]:
    """SIGINT to all processes, as from a terminal: checkpoint, exit code 130; resumes."""
    return _stopped(bench, name, signal.SIGINT, group=True)


def terminated(bench: Bench, name: str) -> list[str]:
    """SIGTERM of the driver, as before a preemption: checkpoint, exit code 143; resumes."""
    return _stopped(bench, name, signal.SIGTERM, group=False)


def _stopped(bench: Bench, name: str, number: int, *, group: bool) -> list[str]:
    recipe, command = _training(bench, name)
    stage = bench.run(recipe).stage_dir(STAGE)
    command.kill(number, group=group)
    code = command.ends()
    assert code == 128 + number, f"exit code {code}:\n{command.said()}"
    assert "has written a checkpoint after step" in command.said()
    said = int(command.said().rpartition("after step ")[2].partition(":")[0])
    assert Path(newest_checkpoint(stage)).name == f"step-{said:08d}"
    bench.train(recipe).ends_well()
    return _lost_after_resuming(bench, recipe)


def interrupted_twice(bench: Bench, name: str) -> list[str]:
    """SIGINT twice while a worker stands still: ends at once; resumes."""
    recipe, command = _training(bench, name)
    # A stopped worker cannot write the checkpoint that the first signal asks for.
    orphans = command.training_workers()
    orphans[0].suspend()
    command.kill(signal.SIGINT)
    file = bench.run(recipe).path / "stop"
    command.until(lambda: "SIGINT" in file.read_text(), "the request to stop")
    command.kill(signal.SIGINT)
    code = command.ends()
    assert code == 130, f"exit code {code}:\n{command.said()}"
    bench.train(recipe).ends_well()
    return _lost_after_resuming(bench, recipe) + still_running(orphans)


def _lost_after_resuming(bench: Bench, recipe: Path, undisturbed: Run | None = None) -> list[str]:
    """Compare a run; it must have been cut off, and have gone on from a checkpoint."""
    log = bench.run(recipe).path / "logs" / f"{STAGE}-worker0.log"
    assert re.search(r"after step [1-9]", log.read_text()), "the fault came too late"
    return bench.lost(recipe, undisturbed)


def checkpoint_truncated(bench: Bench, name: str) -> list[str]:
    """A checkpoint cut short: refused by name; the one before it where asked for."""
    recipe = bench.recipe_file(name)
    newest = _part_of_a_run(bench, recipe)
    weights = newest / "weights.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    _is_refused(bench.train(recipe), f"{weights} is damaged", "faults.damaged_checkpoint=previous")
    bench.train(recipe, "faults.damaged_checkpoint=previous").ends_well()
    return bench.lost(recipe)


def checkpoint_changed(bench: Bench, name: str) -> list[str]:
    """A flipped bit in a checkpoint: refused by name; the one before it where asked for."""
    recipe = bench.recipe_file(name)
    state = _part_of_a_run(bench, recipe) / "training_state.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    _is_refused(bench.train(recipe), f"{state} is damaged: its content has changed")
    bench.train(recipe, "faults.damaged_checkpoint=previous").ends_well()
    return bench.lost(recipe)


def checkpoint_of_a_newer_version(bench: Bench, name: str) -> list[str]:
    """A checkpoint by a newer version: refused by name."""
    recipe = bench.recipe_file(name)
    file = _part_of_a_run(bench, recipe) / "checkpoint.json"
    original = file.read_text()
    file.write_text(json.dumps(json.loads(original) | {"format": 99}))
    _is_refused(bench.train(recipe), f"{file.parent} has format 99", "update msvqa")
    file.write_text(original)
    bench.train(recipe).ends_well()
    return bench.lost(recipe)


def checkpoint_of_another_model(bench: Bench, name: str) -> list[str]:
    """A start from a checkpoint of another model: refused by name."""
    recipe = bench.recipe_file(name)
    foreign = bench.folder / f"{name}-foreign"
    _save_dualvgr(foreign)
    command = bench.train(recipe, f"stages.0.init_from={foreign}")
    _is_refused(command, f"{foreign} is a checkpoint of model 'dualvgr', not of 'msvqa'")
    bench.train(recipe).ends_well()
    return bench.lost(recipe)


def _save_dualvgr(folder: Path) -> None:
    raw = raw_recipe(folder)
    raw |= {"model": {"name": "dualvgr"}, "stages": [raw["stages"][1] | {"init_from": None}]}
    words = [Vocabulary.build([["what"]]), AnswerList.build(["this"], top=1)]
    content = Content(
        recipe=parse(raw), model=make_dualvgr(), examples="questions", lexicon=Lexicon(words),
        training_state={}, score=None, finished=True, position=Position(stage="answer", step=1),
    )  # fmt: skip
    save_checkpoint(folder, content)


def _part_of_a_run(bench: Bench, recipe: Path) -> Path:
    """Copy the undisturbed run as it was before its last checkpoint; return the newest left."""
    whole, run = bench.undisturbed, bench.run(recipe)
    shutil.copytree(whole.path, run.path)
    (run.path / "recipe.yaml").unlink()
    newest = newest_checkpoint(run.stage_dir(STAGE))
    shutil.rmtree(newest)
    return Path(newest_checkpoint(run.stage_dir(STAGE)))


def _is_refused(command: Command, *words: str) -> None:
    code = command.ends()
    said = command.said()
    assert code == 2, f"exit code {code}:\n{said}"
    assert "Traceback" not in said, said
    missing = [word for word in words if word not in said]
    assert not missing, f"{missing} are not said:\n{said}"


def disk_full_at_a_checkpoint(bench: Bench, name: str) -> list[str]:
    """A disk that is full when a checkpoint is written: the last one stays, the message helps."""
    with small_disk(bench.folder / f"{name}-disk", 40) as disk:
        recipe = bench.recipe_file(name, runs=str(disk.folder), faults={"storage_wait_s": 1.0})
        stage = bench.run(recipe).stage_dir(STAGE)
        command = bench.train(recipe)
        command.until(bench.reached(recipe), "step 8")
        disk.fill(command.training_workers())
        _is_refused(command, "ake room")
        assert newest_checkpoint(stage) is not None
        disk.empty([])
        bench.train(recipe).ends_well()
        return bench.lost(recipe)


def storage_away_for_a_while(bench: Bench, name: str) -> list[str]:
    """A disk that is full for a while: training waits and goes on by itself."""
    with small_disk(bench.folder / f"{name}-disk", 40) as disk:
        recipe = bench.recipe_file(name, runs=str(disk.folder))
        logs = _logs_elsewhere(bench, recipe)
        command = bench.train(recipe)
        command.until(bench.reached(recipe), "step 8")
        workers = command.training_workers()
        disk.fill(workers)
        log = logs / f"{STAGE}-worker0.log"
        command.until(lambda: "trying again" in log.read_text(), "the first failure")
        disk.empty(workers)
        command.ends_well()
        return bench.lost(recipe)


def object_store_away_for_a_while(bench: Bench, name: str) -> list[str]:
    """An object store that does not answer for a while: training waits and goes on by itself."""
    place = f"s3://{BUCKET}/{name}"
    with object_store() as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("MSVQA_CACHE", str(bench.folder / f"{name}-cache"))
        recipe = bench.recipe_file(name, runs=place)
        command = bench.train(recipe)
        command.until(bench.reached(recipe), "step 8")
        server.stop()
        command.until(lambda: "cannot be" in command.said(), "the first failure")
        time.sleep(5)
        server.start()
        command.ends_well()
        return bench.lost(recipe)


def _logs_elsewhere(bench: Bench, recipe: Path) -> Path:
    """Put the logs of a run on a disk that has room: what happens is read from them."""
    elsewhere, logs = recipe.with_suffix(".logs"), bench.run(recipe).path / "logs"
    elsewhere.mkdir()
    logs.parent.mkdir(parents=True)
    logs.symlink_to(elsewhere)
    return elsewhere


def disk_full_at_a_shard(bench: Bench, name: str) -> list[str]:
    """A disk that is full when a shard is written: no damaged shard, the message helps."""
    with small_disk(bench.folder / f"{name}-disk", 40) as disk:
        recipe = bench.extraction(name, disk.folder / "store", data_workers=1)
        command = bench.extract(recipe)
        workers = command.extraction_workers()
        command.until(lambda: shards_of(recipe), "the first shard")
        disk.fill(workers)
        _is_refused(command, "cannot be written", "make room")
        finished = shards_of(recipe)
        disk.empty([])
        bench.extract(recipe).ends_well()
        return bench.lost_of_store(recipe) + _done_twice(recipe, finished)


def extraction_worker_killed(bench: Bench, name: str) -> list[str]:
    """kill -9 of an extraction worker: every video exactly once, the same bytes."""
    recipe = bench.extraction(name)
    command = bench.extract(recipe)
    workers = command.extraction_workers()
    command.until(lambda: shards_of(recipe), "the first shard")
    workers[-1].kill()
    finished = shards_of(recipe)
    command.ends_well()
    # The killed worker may have had no time to say that its shard is in place: it is made again.
    return bench.lost_of_store(recipe) + _done_twice(recipe, finished)[1:]


def extraction_driver_killed(bench: Bench, name: str) -> list[str]:
    """kill -9 of the driver of an extraction; the same command at once goes on."""
    recipe = bench.extraction(name)
    command = bench.extract(recipe)
    orphans = command.extraction_workers()
    command.until(lambda: shards_of(recipe), "the first shard")
    command.kill()
    finished = shards_of(recipe)
    bench.extract(recipe).ends_well()
    lost = bench.lost_of_store(recipe) + _done_twice(recipe, finished)
    return lost + still_running(orphans)


def _done_twice(recipe: Path, finished: Mapping[Path, int]) -> list[str]:
    """Return the shards that were finished in time and yet written again."""
    after = shards_of(recipe)
    assert 0 < len(finished) < len(after), "the fault has to come in the middle"
    return [f"{shard.name} twice" for shard, time in finished.items() if after[shard] != time]


def decoder_hangs_or_crashes(bench: Bench, name: str) -> list[str]:
    """A decoder that never returns and one that dies; a file whose reading never returns.

    All three files are named, the others are done.
    """
    videos = bench.folder / f"{name}-videos"
    videos.mkdir()
    names = ("good1", "hang", "good2", "stalled", "crash", "good3")
    for video in names:
        barcode_video.write(videos / f"{video}.avi", 20)
    lines = ["video,question,answer,split", *(f"{video},what?,code,train" for video in names)]
    (videos / "table.csv").write_text("\n".join(lines) + "\n")
    data = {"name": "table", "root": str(videos), "prepared": str(videos / "p")}
    clips = {"num_clips": 2, "frames_per_clip": 4, "size_px": SIZE_PX, "timeout_s": 5.0}
    recipe = bench.recipe_file(name, data=data, clips=clips)
    named = ("hang: timeout", "crash: unreadable", "SIGSEGV", "stalled: timeout", "disk answer")
    with stalled(videos / "stalled.avi"):
        _is_refused(bench.extract(recipe, path=PLANTED), "3 of 6 videos", *named)
    bench.extract(recipe, "data.allow_missing=true").ends_well()
    store = Store.open(store_of(recipe))
    assert {*store.rejected} == {"hang", "crash", "stalled"}, store.rejected
    assert {v for v, facts in store.facts.items() if "sha256" not in facts} == {"stalled"}
    expected = sample_clips(20, 2, 4).ravel().tolist()
    good = [video for video in names if video.startswith("good")]
    return [video for video in good if shown(store, video) != expected]


def shown(store: Store, video: str) -> list[int]:
    """Return the frame numbers that the clips of a video show."""
    frames = store.read(video)["clips"].reshape(-1, SIZE_PX, SIZE_PX, 3)
    return [barcode_video.read(frame) for frame in frames]


def worker_silent(bench: Bench, name: str) -> list[str]:
    """SIGSTOP of a training worker: it is named, with the stacks of the one that waits."""
    recipe = bench.recipe_file(name, faults={"watchdog_s": 3.0})
    logs = bench.run(recipe).path / "logs"
    command = bench.train(recipe)
    command.until(bench.reached(recipe), "step 8")
    victim = command.training_workers()[-1]
    ranks = {beat.pid: beat.rank for beat in read_beats(logs, STAGE, 2)}
    rank = ranks[victim.pid]
    victim.suspend()
    missing = f"missing is worker {rank} (process {victim.pid} on "
    verdicts = logs / VERDICTS
    command.until(lambda: verdicts.is_file() and missing in verdicts.read_text(), "the verdict")
    command.until(lambda: missing in command.said(), "the verdict on the console")
    stacks = (logs / f"{STAGE}-worker{1 - rank}-stacks.txt").read_text()
    assert "train_stage" in stacks, stacks
    victim.resume()
    command.ends_well()
    return bench.lost(recipe)


def still_running(processes: list[psutil.Process], patience_s: float = 10.0) -> list[str]:
    """Return the processes that have not ended by themselves."""
    deadline = time.monotonic() + patience_s
    while alive := [process for process in processes if _is_alive(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return [f"process {process.pid} still runs" for process in alive]


def _is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; one that ended and that nobody has asked about does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        worker_killed, worker_killed_of_a_model_in_pieces, driver_killed, interrupted,
        interrupted_twice, terminated,
        checkpoint_truncated, checkpoint_changed, checkpoint_of_a_newer_version,
        checkpoint_of_another_model, disk_full_at_a_checkpoint, storage_away_for_a_while,
        object_store_away_for_a_while,
        disk_full_at_a_shard, extraction_worker_killed, extraction_driver_killed,
        decoder_hangs_or_crashes, worker_silent, *NODE_FAULTS,
    )
}  # fmt: skip
