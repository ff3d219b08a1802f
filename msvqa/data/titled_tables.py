"""Titled videos of the user and pairs of them, from their rows to tables of media and examples."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from msvqa.data.annotated import Annotated
from msvqa.data.examples.pairs import Pairs
from msvqa.data.examples.tags import Tags
from msvqa.data.examples.titled import Titled
from msvqa.data.placed_media import Found, Place, PlacedMedia, RowOf
from msvqa.data.root import Root, SourceFile
from msvqa.data.schema import Problem
from msvqa.data.table_splits import SPLITS, deal, deal_pairs
from msvqa.data.titled_media import VIDEOS, Labels, pair_examples, tag_examples
from msvqa.data.titled_rows import (
    PairRow,
    TableRows,
    TitledRow,
    counted,
    place_pairs,
    read_pairs,
    read_titles,
    refuse_unknown,
)
from msvqa.data.video_files import VideoFile, endings_tried


@dataclass(frozen=True)
class TitledTables:
    """Reads tables of titled videos and of pairs."""

    root: Root
    name_of: Callable[[str], str]
    """Gives all spellings of a video one name."""
    file_of: Callable[[str], VideoFile]
    """Returns the file of a name."""
    seed: int
    """Makes splits where no column says them."""
    shared: Sequence[str]
    """Media that may be in several splits, see `data.shared_videos`."""

    def titled(self, file: SourceFile) -> Annotated:
        """Read titled videos, an example each."""
        found, notes = read_titles(file, self.name_of, once=False), []
        dealt: dict[str, str] = {}
        if not found.has_splits:
            dealt = deal([row.video for row in found.rows], self.seed)
            notes.append(divided(file, "videos", self.seed))
        if not any(row.tags for row in found.rows):
            notes.append(f"no row of {file.name} has tags: there is nothing to learn to tag with")
        rows = {
            split: [row for row in found.rows if (row.split or dealt[row.video]) == split]
            for split in SPLITS
        }
        videos = self._videos(rows, _rows_of(file.name, rows))
        examples = [tag_examples(table) for table in videos.of_split.values()]
        return self._annotated(Tags, videos, examples, found.problems, notes)

    def pairs(self, file: SourceFile, titles: SourceFile | None) -> Annotated:
        """Read pairs, whose titles and tags come from the table of titled videos."""
        pairs, notes = read_pairs(file, self.name_of), []
        if titles is None:
            known = _untitled(pairs)
            notes.append(
                "data.titles names no table of titled videos: titles are empty, and no video has "
                "tags; what is known of videos is their frames"
            )
        else:
            known = read_titles(titles, self.name_of, once=True)
            refuse_unknown(pairs, known)
        notes += self._place(pairs, known)
        if titles is None:
            rows = {split: _untitled(pairs, split).rows for split in SPLITS}
        else:
            titled = {row.video: row for row in known.rows}
            rows = {s: [titled[video] for video in _named(pairs.rows, s)] for s in SPLITS}
        videos = self._videos(rows, _rows_of(known.file.name, rows))
        examples = [
            pair_examples(table, _labels(pairs.rows, split), split)
            for split, table in videos.of_split.items()
        ]
        problems = [*pairs.problems, *(known.problems if titles is not None else ())]
        return self._annotated(Pairs, videos, examples, problems, notes)

    def _place(self, pairs: TableRows[PairRow], known: TableRows[TitledRow]) -> list[str]:
        """Find the split of every pair; return how, where no column of the pairs says it."""
        file = pairs.file
        if pairs.has_splits:
            pairs.need_splits()
            return []
        if known.has_splits:
            place_pairs(pairs, {row.video: row.split for row in known.rows})
            how = f"no row of {file.name} has a split: pairs are where {known.file.name} has videos"
        else:
            place_pairs(pairs, deal_pairs((row.videos for row in pairs.rows), self.seed))
            how = divided(file, "pairs", self.seed) + ", so that no video is in two of them"
        return [f"{how}: {counted(pairs.rows, SPLITS)}"]

    def _videos(self, rows: Mapping[str, Sequence[TitledRow]], row_of: RowOf) -> "_Videos":
        found = {
            (split, Place(row.video)): Found(self.file_of(row.video), "video")
            for split in SPLITS
            for row in rows[split]
        }
        return _Videos(rows, PlacedMedia([*found], found, self.root, row_of))

    def _annotated(
        self,
        kind: type[Titled],
        videos: "_Videos",
        examples: Sequence[pa.Table],
        problems: Sequence[Problem],
        notes: Sequence[str],
    ) -> Annotated:
        """Return the tables of all splits, with what is wrong with rows and files."""
        media = videos.media
        absent = [found.file for found in media.found.values() if not found.file.path]
        return Annotated(
            kind=kind,
            splits=SPLITS,
            media=media.table,
            examples=pa.concat_tables(examples).combine_chunks(),
            problems=[*problems, *media.problems(SPLITS, self.shared)],
            notes=notes,
            same_file=media.same_file,
            endings_tried=endings_tried(absent),
        )


@dataclass(frozen=True)
class _Videos:
    """The videos of all splits, in the same order as rows and as media."""

    rows: Mapping[str, Sequence[TitledRow]]
    media: PlacedMedia

    @property
    def of_split(self) -> dict[str, pa.Table]:
        """The videos of each split, with columns as in `VIDEOS`."""
        tables, start = {}, 0
        for split, rows in self.rows.items():
            media = self.media.table.slice(start, len(rows))
            titles = pa.array([row.title for row in rows], pa.string())
            tags = pa.array([list(row.tags) for row in rows], pa.list_(pa.string()))
            columns = {name: media[name] for name in media.schema.names}
            whole = pa.table(columns | {"title": titles, "tags": tags}, schema=VIDEOS)
            tables[split], start = whole.combine_chunks(), start + len(rows)
        return tables


def divided(file: SourceFile, what: str, seed: int) -> str:
    """Say that a table has no splits, and how they are made."""
    return (
        f"no row of {file.name} has a split: its {what} are divided into train, val and test by "
        f"data.split_seed={seed}"
    )


def _rows_of(name: str, rows: Mapping[str, Sequence[TitledRow]]) -> RowOf:
    """Return what finds the row of the file `name` that a medium of a split is from."""
    numbers = {(split, row.video): row.number for split in SPLITS for row in rows[split]}
    return lambda split, place: (name, numbers[split, place.path])


def _untitled(pairs: TableRows[PairRow], split: str | None = None) -> TableRows[TitledRow]:
    """Return the videos of pairs, all or of one split, with the row that names each first.

    Nobody says a title of them.
    """
    named: dict[str, int] = {}
    for row in pairs.rows:
        for video in row.videos if split in (None, row.split) else ():
            named.setdefault(video, row.number)
    return TableRows(pairs.file, [TitledRow(n, "", video, "", ()) for video, n in named.items()])


def _named(pairs: Iterable[PairRow], split: str) -> list[str]:
    """Return the videos of the pairs of a split, in order of first appearance."""
    return [*dict.fromkeys(video for row in pairs if row.split == split for video in row.videos)]


def _labels(pairs: Iterable[PairRow], split: str) -> Labels:
    """Return the pairs of a split as columns."""
    rows = [row for row in pairs if row.split == split]
    return Labels(
        first=[row.first for row in rows],
        second=[row.second for row in rows],
        similarity=[row.similarity for row in rows],
        row=[row.number for row in rows],
    )
