"""How fast this machine decodes and computes."""

from pathlib import Path

from msvqa.checks.folder import find_videos
from msvqa.checks.report import Check
from msvqa.recipe import ClipsConfig, Recipe


def speed_checks(folder: Path | None, recipe: Recipe | None) -> list[Check]:
    """Measure, and say which side limits and how many decode workers to use."""
    from msvqa.engine.speed import measure

    clips = recipe.clips if recipe is not None else ClipsConfig()
    follow = recipe is not None and recipe.data.follow_links
    videos = (
        [folder / name for name in find_videos(folder, follow_links=follow).files]
        if folder is not None
        else []
    )
    speed = measure(clips, videos)
    gemm = ", ".join(f"{kind} {flops / 1e12:.2f}" for kind, flops in speed.gemm_flops.items())
    computing = (
        f"{speed.device}: matrix product {gemm} TFLOP/s, ResNet-101 at 224 px "
        f"{speed.encoder_flops / 1e12:.2f} TFLOP/s = {speed.computed_per_s:.3g} videos/s"
    )
    decoding = (
        f"{speed.decode_s:.3f} s for one video on one core, "
        f"{speed.decoded_per_s:.3g} videos/s on {speed.cpus} cores"
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
