"""`msvqa extract`: every medium is decoded once, to a store of what its processor makes of it."""

import importlib.metadata
import logging
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msvqa
from msvqa.checks.copies import check_copies
from msvqa.checks.features import check_features
from msvqa.checks.recipe import compiler_problems, decoder_problems, width_problems
from msvqa.checks.sources import source_problems
from msvqa.data import store as stores
from msvqa.data.features import check_ids, write_hdf5
from msvqa.data.found_store import find_store, refuse_rejected
from msvqa.data.medium import Medium
from msvqa.data.nvdec_needs import LIBRARY as OF_NVDEC
from msvqa.data.prepared import Prepared
from msvqa.data.processors.features import Features
from msvqa.data.processors.processor import Processor, processor_of, store_location
from msvqa.data.records import stored_checksum
from msvqa.data.root import Root, open_root
from msvqa.data.store import Store, StoreSpec
from msvqa.engine import ceiling, cluster
from msvqa.engine.actors import Pool
from msvqa.engine.cluster import Resources
from msvqa.engine.ingest import ShardJob, try_formats, write_shards
from msvqa.engine.pace import UNMEASURED, ExtractionClock, Written, keep_pace, kept_pace
from msvqa.errors import ClusterError, RecipeError, StoreError
from msvqa.files import turn
from msvqa.job import refuse_lost
from msvqa.prepare import prepare
from msvqa.recipe import Recipe
from msvqa.storage import Folder, is_remote, join, open_folder

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, int], None]
"""Called with the videos done, all videos, and the rejected ones."""

LIBRARIES = ("numpy", "torch", "av", "decord", "ray")
LOCK = ".lock"
WORKERS_PER_GPU = 16
"""Where nobody has measured how many keep a GPU busy: the fastest need so many for small videos,
and each has a context and encoders of its own there, about 1 GB."""
REASONS = 5
"""Of those why PyAV read videos, the most frequent that are said."""
MEDIA_TRIED = 8
"""Media among which one is looked for that can be read, to try number formats on."""


def extract(
    recipe: Recipe,
    *,
    hdf5: Path | None = None,
    progress: Progress | None = None,
    checked: bool = False,
    trains: bool = True,
) -> Store:
    """Return the complete store of a recipe; extract what is not there yet.

    May be stopped at any moment: the next call goes on with the shards that are not there, and the
    result is the same byte for byte.

    Args:
        recipe: its processor says what the store holds.
        hdf5: also write the features as two files in the layout of DualVGR and HCRN.
        progress: called whenever a shard is done.
        checked: the caller has called `check_features`, which reads whole files.
        trains: as in `prepare`.

    Raises:
        RecipeError: weights of an encoder that cannot be used, or of another width.
        StoreError: the folder holds a store that was made in another way.
        DataError: videos are missing or unreadable, and `data.allow_missing` is not set; or
            feature files that do not fit the recipe.
    """
    check_extraction(recipe, hdf5)
    processor = processor_of(recipe)
    refuse_lost({f"{processor.section}.store": store_location(recipe)})
    if hdf5 is not None:
        refuse_lost({"--hdf5": hdf5.absolute()})
    if find_store(store_location(recipe), processor.spec()) is None:
        cluster.check_named()
    prepared = prepare(recipe.data, need_videos=processor.reads_files, trains=trains)
    videos = videos_of(prepared, present_only=processor.reads_files)
    if not checked:
        check_features(recipe, prepared)
    if hdf5 is not None:
        check_ids(_ids(videos))
    store = _extract(recipe, videos, open_root(prepared.root), progress)
    if not recipe.data.allow_missing:
        refuse_rejected(store)
    check_copies(recipe, prepared, store)
    if hdf5 is not None:
        write_hdf5(store, hdf5)
    return store


def speed_line(recipe: Recipe, store: Store) -> str:
    """Say how fast the store of a recipe was extracted, the last time that anything was."""
    pace = kept_pace(store)
    if pace is None:
        return "speed of extraction: the store does not say; it was made by an earlier version"
    if pace.machine != ceiling.this_machine():
        # What several could do together, or another one, was not measured here.
        return pace.line(None, "")
    hint = UNMEASURED if ceiling.can_measure(recipe) else ""
    return pace.line(ceiling.best_extraction_per_s(recipe), hint)


def videos_of(prepared: Prepared, *, present_only: bool = True) -> list[Medium]:
    """Return the media of all splits, each once, in a fixed order."""
    media: dict[str, Medium] = {}
    for name in prepared.splits:
        for medium in prepared.split(name, present_only).media:
            media.setdefault(medium.id, medium)
    return [medium for _, medium in sorted(media.items())]


def check_extraction(recipe: Recipe, hdf5: Path | None = None) -> None:
    """Look at what extraction reads beside the media, before anything starts.

    Raises:
        RecipeError: weights of an encoder that cannot be used, or of another width; HDF5 files are
            asked for where there are no features.
    """
    processor = processor_of(recipe)
    if hdf5 is not None and not isinstance(processor, Features):
        raise RecipeError(["HDF5 files hold features, but the recipe has no section `features`"])
    if hdf5 is not None:
        open_folder(hdf5.absolute().parent).create()
    section = f"{processor.section}."
    problems = [*width_problems(recipe), *source_problems(recipe, within=section)]
    problems += [found for found in compiler_problems(recipe) if found.startswith(section)]
    problems += decoder_problems([processor])
    if problems:
        raise RecipeError(problems)


@dataclass(frozen=True)
class _Store:
    """A store on its way to be whole."""

    processor: Processor
    location: str
    wanted: dict[int, list[Medium]]
    """The media of each shard"""
    root: Root

    @cached_property
    def spec(self) -> StoreSpec:
        return self.processor.spec()

    def as_begun(self) -> "_Store":
        """Return the store with the number formats that shards of an earlier job have."""
        begun = None if self.spec.is_settled else stores.made_as(self.location, self.spec)
        return self.settled(begun.precisions) if begun is not None else self

    def settled(self, precisions: Mapping[str, str]) -> "_Store":
        return replace(self, processor=self.processor.settled(precisions))

    def current(self) -> dict[int, dict[str, Any] | None]:
        """Return the description of every shard that is whole and as it would come out now."""
        ids = {number: _ids(media) for number, media in self.wanted.items()}
        found = stores.read_shards(self.location, self.spec, ids)
        return {
            number: shard
            if _is_current(self.processor, shard, self.wanted[number], self.root)
            and _is_finite(self.spec, self.location, number, shard)
            else None
            for number, shard in found.items()
        }

    def shard(self, number: int) -> dict[str, Any] | None:
        return stores.read_shard(self.location, number, self.spec, _ids(self.wanted[number]))

    def index_is_current(self) -> bool:
        try:
            store = Store.open(self.location)
        except StoreError:
            return False
        known = {*store.video_ids, *store.rejected}
        return known == {medium.id for media in self.wanted.values() for medium in media}


def _extract(
    recipe: Recipe, videos: Sequence[Medium], root: Root, progress: Progress | None
) -> Store:
    processor, location = processor_of(recipe), store_location(recipe)
    folder, size = open_folder(location), processor.spec().videos_per_shard
    wanted = {n: list(videos[i : i + size]) for n, i in enumerate(range(0, len(videos), size))}
    begun = _Store(processor, location, wanted, root).as_begun()
    store = find_store(location, begun.spec)
    # What is whole may lie where nothing can be written.
    if store is not None and all(begun.current().values()) and begun.index_is_current():
        return store
    folder.create()
    with _locked(folder):
        # Another process may have begun meanwhile.
        begun = begun.as_begun()
        done = begun.current()
        todo = {n: wanted[n] for n, shard in done.items() if shard is None}
        if not todo and begun.index_is_current():
            return Store.open(location, begun.spec)
        folder.remove(stores.INDEX)
        stores.remove_leftovers(location, len(wanted))
        _check_space(location, begun.spec, sum(map(len, todo.values())))
        with _pool(recipe, todo) as pool:
            settled = _settled(begun, todo, pool)
            clock = ExtractionClock(min(pool.workers, len(todo)))
            for written in clock.waited(_write(settled, todo, pool)):
                clock.add(written)
                done[written.shard] = settled.shard(written.shard)
                _report(progress, done, len(videos))
        # Of workers that died in the middle of a shard.
        stores.remove_leftovers(location, len(wanted))
        shards = [_whole(location, done, n) for n in wanted]
        if pace := clock.pace(sum(map(len, todo.values()))):
            here = None if cluster.joins_cluster() else ceiling.this_machine()
            keep_pace(location, replace(pace, machine=here))
        _say_what_pyav_read(shards, settled.spec.decoder)
        return stores.write_index(location, settled.spec, shards, _versions(settled.spec.decoder))


def _settled(store: _Store, todo: dict[int, list[Medium]], pool: Pool) -> _Store:
    """Return a store with the number formats that its encoders are best at on these machines.

    They are chosen once, before any worker begins, and from then on the shards say so.
    """
    if store.spec.is_settled:
        return store
    tried = [medium for media in todo.values() for medium in media][:MEDIA_TRIED]
    trials = try_formats(store.processor, tried, pool) if tried else []
    for trial in trials:
        key = f"{store.processor.section}.{trial.part}"
        if trial.problem:
            logger.warning("%s: computed in float32: %s", key, trial.problem)
        else:
            logger.info(
                "%s: computed in bf16, %.2f times as fast as float32 and as good: cosine %.5f",
                key, trial.gain, trial.cosine,
            )  # fmt: skip
    usual = dict.fromkeys(store.processor.encoders(), stores.USUAL_PRECISION)
    return store.settled(usual | {trial.part: trial.precision for trial in trials})


def _write(store: _Store, todo: dict[int, list[Medium]], pool: Pool) -> Iterator[Written]:
    if not todo:
        return
    _say_what_is_random(store.processor)
    spec = store.spec.to_dict()
    yield from write_shards(
        ShardJob(store.processor, store.location, spec, _versions(store.spec.decoder), todo), pool
    )


def _say_what_is_random(processor: Processor) -> None:
    for part, (encoder, _) in processor.encoders().items():
        if getattr(encoder, "weights", None) is None:
            logger.warning(
                "%s.%s: no weights are given, so the features are those of a random %s; "
                "%s.%s.weights names a file of them",
                processor.section, part, encoder.name, processor.section, part,
            )  # fmt: skip


def _say_what_pyav_read(shards: Sequence[dict[str, Any]], decoder: str) -> None:
    """Say how many videos another back end than the one of the recipe has read, and why."""
    videos = [video for shard in shards for video in shard["videos"]]
    reasons = Counter(video["by_pyav"] for video in videos if "by_pyav" in video)
    if reasons:
        logger.warning(
            "%d of %d videos were read by pyav, not by %s: %s", reasons.total(), len(videos),
            decoder, "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common(REASONS)),
        )  # fmt: skip


@contextmanager
def _pool(recipe: Recipe, todo: dict[int, list[Medium]]) -> Iterator[Pool]:
    """Give workers for the block; where there is nothing to do, without a cluster."""
    if not todo:
        yield Pool(0)
        return
    with cluster.connected() as resources:
        yield _workers(recipe, resources)


def _workers(recipe: Recipe, resources: Resources) -> Pool:
    cluster.need_cpus(resources)
    cpus = int(resources.cpus)
    processor = processor_of(recipe)
    on_gpus = bool(resources.gpus and (processor.encoders() or processor.decoder == "nvdec"))
    workers = recipe.scaling.data_workers or min(cpus, _most_workers(recipe, resources, on_gpus))
    if workers > cpus:
        raise ClusterError(
            f"scaling.data_workers asks for {workers} CPUs, but there are {resources}"
        )
    return Pool(workers, cluster.gpu_share(workers, resources.gpus) if on_gpus else 0.0)


def _most_workers(recipe: Recipe, resources: Resources, on_gpus: bool) -> int:
    """Return how many workers there is something to do for: those of a GPU wait for each other.

    While one of them encodes the others decode, see `msvqa.engine.speed`.
    """
    if not on_gpus:
        return int(resources.cpus)
    measured = None if cluster.joins_cluster() else ceiling.best_workers(recipe)
    if measured is not None:
        return measured
    logger.info(
        "up to %d workers for each GPU extract; scaling.data_workers is another number of all of "
        "them: where decoding limits, as the last line says then, more are faster", WORKERS_PER_GPU,
    )  # fmt: skip
    return math.ceil(WORKERS_PER_GPU * resources.gpus)


def _is_finite(spec: StoreSpec, location: str, number: int, shard: dict[str, Any] | None) -> bool:
    """Whether a shard holds finite numbers alone; one of an earlier version is read for that.

    Shards in an object store pass: theirs are looked at when they are read.
    """
    if shard is None or is_remote(location):
        return True
    shard["finite"] = stores.shard_is_finite(location, number, spec, shard)
    return bool(shard["finite"])


def _is_current(
    processor: Processor, found: dict[str, Any] | None, videos: Sequence[Medium], root: Root
) -> bool:
    """Whether a shard is there, and would not come out otherwise now."""
    if found is None:
        return False
    files, timeout_s = processor.files(), processor.timeout_s
    if _records_differ(videos, found["videos"]):
        return False
    for video, facts in zip(videos, found["videos"], strict=True):
        # A row may have been mended in its place.
        if files and "error" in facts and not files.problem(video.id):
            return False
        # The size alone: to hash all files again would cost as much as to decode them.
        if "bytes" in facts and _size(video, root) != facts["bytes"]:
            return False
        if facts["outcome"] == "timeout" and facts.get("timeout_s", 0.0) < timeout_s:
            return False
    return True


def _records_differ(videos: Sequence[Medium], facts: Sequence[dict[str, Any]]) -> bool:
    """Whether records on a disk have other checksums than when they were read."""
    known: dict[str, list[tuple[int, int]]] = {}
    for video, said in zip(videos, facts, strict=True):
        if "checksum" in said and video.end is not None and not is_remote(video.path):
            known.setdefault(video.path, []).append((int(video.end), said["checksum"]))
    return any(_differ(Path(path), places) for path, places in known.items())


def _differ(path: Path, places: Sequence[tuple[int, int]]) -> bool:
    """Whether the records that end at some bytes of a file have other checksums than these."""
    try:
        with path.open("rb") as file:
            return any(stored_checksum(file, end) != checksum for end, checksum in places)
    except OSError:
        return True


def _size(video: Medium, root: Root) -> int | None:
    name = root.name_of(video.path)
    return None if name is None else root.size(name)


def _ids(videos: Sequence[Medium]) -> list[str]:
    return [video.id for video in videos]


def _whole(location: str, done: dict[int, dict[str, Any] | None], shard: int) -> dict[str, Any]:
    found = done[shard]
    if found is None:
        place = join(location, stores.shard_name(shard))
        raise StoreError(f"{place} is not there; run extract again")
    return found


def _report(progress: Progress | None, done: dict[int, dict[str, Any] | None], total: int) -> None:
    if progress is None:
        return
    videos = [video for shard in done.values() if shard for video in shard["videos"]]
    progress(len(videos), total, sum("error" in video for video in videos))


def _versions(decoder: str) -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    if decoder == "nvdec":
        # A named cluster may have it where this machine has not.
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[OF_NVDEC] = importlib.metadata.version(OF_NVDEC)
    return {"msvqa": msvqa.__version__, **versions}


def _check_space(location: str, spec: StoreSpec, videos: int) -> None:
    if is_remote(location):
        return
    needed = videos * sum(array.nbytes for array in spec.arrays.values())
    free = shutil.disk_usage(location).free
    if needed > free:
        raise StoreError(
            f"{location} needs {needed / 1e9:.1f} GB, there are {free / 1e9:.1f} GB free; "
            "name another folder in the field store of its processor"
        )


def await_others(recipe: Recipe) -> None:
    """Wait while another process extracts what a recipe needs; Ray need not be there for that."""
    folder = open_folder(store_location(recipe))
    if (folder.path / LOCK).is_file() and os.access(folder.path / LOCK, os.W_OK):
        with _locked(folder):
            return


@contextmanager
def _locked(folder: Folder) -> Iterator[None]:
    """Keep others out, who wait; two jobs on one object store write the same shards twice."""

    def far() -> str:
        there = sum(1 for _ in folder.path.glob(f"shards/*/{stores.SHARD}"))
        return f"{there} shards are there"

    with turn(folder.path / LOCK, f"extracts to {folder.location}", far):
        yield
