"""The list of all rows: what each compares, its target, and where the target comes from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.rows.setting import Finding, Setting

PROFILES = ("cpu", "long", "gpu")
"""`long`: on processors too, and apart since it takes as long again"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the benchmark."""

    id: str
    what: str
    """Of what the ratio is, or what is counted."""
    target: str
    measured_by: str
    """Module below `benchmarks.rows` and its function; several rows may share one measurement."""
    source: str
    """Where the target comes from."""
    profiles: tuple[str, ...] = ("cpu",)
    is_exact: bool = False
    """Whether it is a count or exactness, which fails the run; else a ratio, which is printed."""
    needs_cores: bool = False
    """Whether several processes work together, as those of Ray: then not all are on one core."""

    @property
    def module(self) -> str:
        """The module that measures it."""
        return self.measured_by.partition(":")[0]

    def measurement(self) -> "Callable[[Setting], list[Finding]]":
        """Import what measures the row; a GPU's rows import neither Ray nor decord."""
        module, _, name = self.measured_by.partition(":")
        found: Callable[[Setting], list[Finding]] = getattr(
            import_module(f"benchmarks.rows.{module}"), name
        )
        return found


BOTH = ("cpu", "gpu")
LONG = ("long",)
METHOD = "measured on one core with AVX512-BF16, paired: "
STREAMS = "measured on two cores, parts of streams paired with parts of plain loops: "
ARITHMETIC = "arithmetic: "
ROWS = (
    Row(
        id="D1",
        what="every frame to RGB and Pillow, for each size anew / ours, 224 and 112 px",
        target=">= 3.0 (mpeg4 320), 3.0 (h264 320), 3.5 (h264 640)",
        measured_by="decoding:speeds",
        source=METHOD + "both sizes from one pass, only planned frames become RGB",
    ),
    Row(
        id="D2",
        what="ours, both sizes / decoding alone; the same videos",
        target="<= 5 (mpeg4 320), 2.1 (h264 320), 1.75 (h264 640)",
        measured_by="decoding:speeds",
        source=METHOD + "128 planned frames of 300 converted and resized",
    ),
    Row(
        id="D3",
        what="planned frames that show another number; likeness to Pillow's bicubic filter",
        target="0 frames; >= 60 dB",
        measured_by="exactness:planned_frames",
        source=ARITHMETIC + "sequential decoding has no other frames; rounding alone gives 72 dB",
        is_exact=True,
    ),
    Row(
        id="D4",
        what="damaged files with another outcome than theirs; seconds for the slowest",
        target="0 files; < 5 s",
        measured_by="exactness:damaged_files",
        source="docs/decoding.md: a bad video is named, counted, and ends nothing",
        is_exact=True,
    ),
    Row(
        id="C1",
        what="decoding a video / reading its cached clips into a buffer, 100 px",
        target=">= 30",
        measured_by="stores:clips",
        source=METHOD + "84 at 100 px",
    ),
    Row(
        id="E1",
        what="a forward pass over float32 NCHW frames that keeps its graph / ours, ResNet-101",
        target=">= 3.0 (CPU with AMX), 2.3 (with bf16), 1.6 (others)",
        measured_by="encoders:against_plain",
        source=METHOD + "2.4; 3.6 to 4.0 where products in bf16 gain more than twice",
        profiles=BOTH,
    ),
    Row(
        id="E2",
        what="operations per second of ResNet-101 / of a matrix product of the same type",
        target=">= 0.75 (CPU), 0.35 (GPU)",
        measured_by="encoders:frames_against_products",
        source=METHOD + "convolutions are matrix products with some copying",
        profiles=BOTH,
    ),
    Row(
        id="E3",
        what="operations per second of 3D ResNeXt-101 / of a matrix product of the same type",
        target=">= 0.6 (CPU); printed on GPUs",
        measured_by="encoders:clips_against_products",
        source=METHOD + "grouped convolutions reach less; on GPUs nothing is published",
        profiles=BOTH,
    ),
    Row(
        id="E4",
        what="smallest cosine of bf16 features to float32 features",
        target=">= 0.9999",
        measured_by="encoders:likeness_of_bf16",
        source=ARITHMETIC + "8 bits of mantissa, errors that do not depend on each other",
        profiles=BOTH,
        is_exact=True,
    ),
    Row(
        id="E5",
        what="float32, channels first / last / bf16 / norm folded / compiled; each to a product",
        target="printed: 1.6 times for compiling is published; cosine to float32 >= 0.999",
        measured_by="ladder:rungs",
        source="published: PyTorch on GPUs; what layout and bf16 bring there is not",
        profiles=("gpu",),
    ),
    Row(
        id="L1",
        what="HDF5 files opened for each question / ours, 256 questions: random; grouped by video",
        target=">= 10; >= 100",
        measured_by="stores:features",
        source=METHOD + "13 and 217",
    ),
    Row(
        id="L2",
        what="ours, grouped / a copy of the same bytes",
        target="<= 1.8",
        measured_by="stores:features",
        source=ARITHMETIC + "one copy, and finding the rows",
    ),
    Row(
        id="T1",
        what="operators that a step has more of for each question more",
        target="0",
        measured_by="grouping:operators",
        source=ARITHMETIC + "no loop over the batch in model or loss",
        profiles=BOTH,
        is_exact=True,
    ),
    Row(
        id="T2",
        what="training step in float32, channels first / in bf16, channels last",
        target=">= 1.8 (CPU with bf16)",
        measured_by="training:formats",
        source=METHOD + "1.7 to 1.8 for 4 and 8 frames of a clip",
        profiles=BOTH,
    ),
    Row(
        id="G1",
        what="visits of an epoch minus the sum of ceil(questions / k) over videos; encoder runs",
        target="0",
        measured_by="grouping:visits",
        source=ARITHMETIC + "docs/architecture.md: the encoders run once per visit",
        profiles=BOTH,
        is_exact=True,
    ),
    Row(
        id="G2",
        what="step of k = 1 / of k = 8, equal questions, over the quotient of their operations",
        target=">= 0.8",
        measured_by="training:groups",
        source=ARITHMETIC + "operations are saved, overhead is not",
        profiles=BOTH,
    ),
    Row(
        id="G3",
        what="largest difference of gradients, encoders once per video / per question, float64",
        target="<= 1e-9",
        measured_by="grouping:gradients_once_per_video",
        source=ARITHMETIC + "equal but for the order of sums",
        profiles=BOTH,
        is_exact=True,
    ),
    Row(
        id="S1",
        what="videos that two workers read in an epoch / videos",
        target="1.0",
        measured_by="grouping:shares",
        source=ARITHMETIC + "a video has one lane; random shares read 2.0 times as many",
        is_exact=True,
    ),
    Row(
        id="M1",
        what="bytes kept for the gradients / those of the published layers, frame and clip, 100 px",
        target="<= 1.1",
        measured_by="training:kept",
        source=ARITHMETIC + "29 and 168 MB in float32, 15 and 96 MB in bf16",
        profiles=BOTH,
        is_exact=True,
    ),
    Row(
        id="D5",
        what="all frames in sequence / ours, 8 frames of 120 s, a key frame every 60; other pixels",
        target=">= 8; 0",
        measured_by="sparse:few_frames",
        source=METHOD + "11 by key frames, where all packets have times",
    ),
    Row(
        id="R1",
        what="CPU time for a video in Ray Data / in a plain loop, pixels, fixed costs left out",
        target="<= 1.5",
        measured_by="ray_overhead:stream",
        source=STREAMS + "1.3",
        needs_cores=True,
    ),
    Row(
        id="R2",
        what="the same with an encoder in the actor, 224 px: features travel, pixels do not",
        target="<= 1.2",
        measured_by="ray_overhead:fused",
        source=STREAMS + "1.15",
        needs_cores=True,
    ),
    Row(
        id="R3",
        what="epoch / its steps alone, decoding while they run, cores as the sizing formula asks",
        target="<= 1.05",
        measured_by="ray_overhead:waiting",
        source=ARITHMETIC + "R c (1 + 0.4) / 0.8 cores for R videos per second of c CPU seconds",
        needs_cores=True,
    ),
    Row(
        id="R4",
        what="step under the trainer / under plain torch.distributed, two workers, CPU time",
        target="<= 1.02",
        measured_by="ray_overhead:steps",
        source=ARITHMETIC + "the same function is called; published: 1.025",
        needs_cores=True,
    ),
    Row(
        id="U1",
        what="step of UMT's first stage, all tokens / 80 % hidden, over the quotient of operations",
        target=">= 0.8",
        measured_by="distilling:steps",
        source=ARITHMETIC + "operations are saved, overhead is not; the teacher sees all tokens",
        profiles=(*LONG, "gpu"),
    ),
    Row(
        id="U2",
        what="operations per second of the student's step / of a matrix product",
        target=">= 0.6 (CPU), 0.45 (GPU)",
        measured_by="distilling:steps",
        source=ARITHMETIC + "a transformer is matrix products, of few tokens here",
        profiles=(*LONG, "gpu"),
    ),
    Row(
        id="U3",
        what="the teacher's share of a step / its share of the operations",
        target="<= 1.1",
        measured_by="distilling:steps",
        source=ARITHMETIC + "it runs once a clip, without gradients",
        profiles=(*LONG, "gpu"),
    ),
    Row(
        id="V1",
        what="step of VideoChat2's instruction, from a store / of a plain loop, rows in memory",
        target="<= 1.05",
        measured_by="chatting:steps",
        source=ARITHMETIC + "reading rows, checks and records are small beside a step",
        profiles=LONG,
    ),
    Row(
        id="V2",
        what="tokens per second of our answers / of the library's generate alone, 8 rows",
        target=">= 0.95",
        measured_by="chatting:writing",
        source=ARITHMETIC + "frames are looked at once for all tokens of an answer",
        profiles=LONG,
    ),
    Row(
        id="V3",
        what="tokens per second of answers, 8 rows at once / one",
        target=">= 2",
        measured_by="chatting:writing",
        source=ARITHMETIC + "weights are read once for all rows, but one core has little to spare",
        profiles=LONG,
    ),
    Row(
        id="V4",
        what="padding, batches by length / drawn; step for each token that is there, drawn / ours",
        target="<= 0.5; >= 1.2",
        measured_by="padding:shares",
        source=ARITHMETIC + "a step is as long as its longest row, and 200 are sorted at a time",
        profiles=LONG,
    ),
    Row(
        id="V5",
        what="frozen parameters with gradients; bytes kept, language model frozen / trained",
        target="0; <= 0.95",
        measured_by="freezing:memory",
        source=ARITHMETIC + "a frozen product keeps its weights alone, and not what it was given",
        profiles=LONG,
        is_exact=True,
    ),
    Row(
        id="V6",
        what="MVBench questions per second by our runner / by the model alone on the same frames",
        target=">= 0.9",
        measured_by="asking:questions",
        source=ARITHMETIC + "clips are decoded in another process while the model is busy",
        profiles=LONG,
        needs_cores=True,
    ),
    Row(
        id="V7",
        what="operations per second of VideoChat2's step of instruction / of a matrix product",
        target=">= 0.33 (GPU)",
        measured_by="large_chat:instruction",
        source=ARITHMETIC + "0.45 as for U2, with a quarter of the video encoder's passes repeated",
        profiles=("gpu",),
    ),
    Row(
        id="V8",
        what="tokens per second of its answers, 8 rows at once / one; weights in bf16 / float32",
        target=">= 4",
        measured_by="large_chat:answers",
        source=ARITHMETIC + "weights are read once for all rows, and a GPU has much to spare",
        profiles=("gpu",),
    ),
    Row(
        id="B1",
        what="CPU seconds until `msvqa --help` has answered",
        target="<= 0.3",
        measured_by="starting:answering",
        source=ARITHMETIC + "the parser alone is imported, no library that takes longer",
    ),
    Row(
        id="B2",
        what="command to first step, nothing prepared, no cluster / to a bare trainer of Ray",
        target="<= 3",
        measured_by="starting:first_steps",
        source=ARITHMETIC + "imports, preparing and extraction come on top of Ray's start",
        profiles=LONG,
        needs_cores=True,
    ),
    Row(
        id="B3",
        what="the same with all prepared, on a cluster that runs already",
        target="<= 1.5",
        measured_by="starting:first_steps",
        source=ARITHMETIC + "imports and checks of the recipe come on top of a trainer's start",
        profiles=LONG,
        needs_cores=True,
    ),
    Row(
        id="B4",
        what="end of a first stage to first step of the second, same job / start of the first",
        target="<= 1.5",
        measured_by="starting:first_steps",
        source=ARITHMETIC + "both start a trainer; before the second one that of the first ends",
        profiles=LONG,
        needs_cores=True,
    ),
    Row(
        id="Q1",
        what="operations per second of MSVQA's training step / of a matrix product, five ways",
        target="printed: 19 questions/s in float32, 38 in half precision were the limits in 2021",
        measured_by="pixel_steps:pixels",
        source=ARITHMETIC + "three times the forward pass, RTX 3090",
        profiles=("gpu",),
    ),
    Row(
        id="W1",
        what="waiting for batches / epoch of DualVGR with all features on the device",
        target="<= 0.05",
        measured_by="steps:features",
        source=ARITHMETIC + "a batch carries numbers of rows alone; 84 s per epoch on an RTX 3080",
        profiles=("gpu",),
    ),
    Row(
        id="N1",
        what="bytes of a batch that go to the device / its pixels in uint8",
        target="<= 1.01",
        measured_by="steps:bytes_of_batches",
        source=ARITHMETIC + "pixels stay uint8; questions have a few hundred bytes",
        profiles=("gpu",),
        is_exact=True,
    ),
)


def chosen(ids: Sequence[str], profile: str) -> list[Row]:
    """Return the rows of a profile, or those that are named: of `cpu` also those of `long`.

    Raises:
        ValueError: a name is none of the profile's.
    """
    profiles = {profile, "long"} if ids and profile == "cpu" else {profile}
    rows = {row.id: row for row in ROWS if profiles & set(row.profiles)}
    if unknown := [name for name in ids if name not in rows]:
        raise ValueError(
            f"profile {profile} has no row {', '.join(unknown)}; it has {', '.join(rows)}"
        )
    return [row for row in rows.values() if row.id in ids or not ids]


def listed(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| id | ratio or count | target | profile | module |",
        "|---|---|---|---|---|",
        *(
            f"| {row.id} | {row.what} | {row.target} | {', '.join(row.profiles)} | "
            f"`benchmarks/rows/{row.module}.py` |"
            for row in rows
        ),
    ]
    return "\n".join(lines) + "\n"
