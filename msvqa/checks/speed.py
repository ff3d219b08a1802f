"""How fast this machine decodes and computes."""

from pathlib import Path

from msvqa.checks.folder import find_videos
from msvqa.checks.report import Check
from msvqa.recipe import Recipe


def speed_checks(folder: Path | None, recipe: Recipe | None) -> list[Check]:
    """Measure, and say which side limits and how many decode workers to use.

    It is kept: `extract` and `train` compare with it what they reach on this machine.
    """
    from msvqa.engine import ceiling
    from msvqa.engine.pace import plain
    from msvqa.engine.speed import measure

    work = ceiling.work_of(recipe, folder)
    follow = recipe is not None and recipe.data.follow_links
    place = Path(work.videos)
    names = find_videos(place, follow_links=follow).files if work.videos else []
    speed = measure(work.clips, [place / name for name in names], work.sizes_px)
    ceiling.keep(work, speed)
    gemm = ", ".join(f"{kind} {flops / 1e12:.2f}" for kind, flops in speed.gemm_flops.items())
    computing = (
        f"{speed.device}: matrix product {gemm} TFLOP/s, ResNet-101 at 224 px "
        f"{speed.encoder_flops / 1e12:.2f} TFLOP/s = {plain(speed.computed_per_s)} videos/s"
    )
    decoding = (
        f"{speed.decode_s:.3f} s for one video on one core, "
        f"{plain(speed.decoded_per_s)} videos/s on {speed.cpus} cores"
    )
    return [
        Check(name="computing", status="ok", detail=computing),
        Check(name="decoding", status="ok", detail=decoding),
        Check(
            name="sizing",
            status="ok",
            detail=f"{speed.limit} limits the extraction of features",
            advice=f"scaling.data_workers={speed.decode_workers}",
        ),
    ]
