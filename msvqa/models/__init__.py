"""Models and their parts. `MODELS` lists the models by name."""

MODELS: dict[str, str] = {
    "msvqa": "msvqa.models.msvqa:MSVQA",
    "dualvgr": "msvqa.models.dualvgr:DualVGR",
    "videochat2": "msvqa.models.videochat2:VideoChat2",
}
