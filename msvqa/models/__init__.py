"""Models and their parts. `MODELS` lists the models by name."""

MODELS: dict[str, str] = {
    "msvqa": "msvqa.models.msvqa:MSVQA",
    "dualvgr": "msvqa.models.dualvgr:DualVGR",
    "mix_nextvlad": "msvqa.models.mix_nextvlad:MixNeXtVLAD",
    "uniter": "msvqa.models.uniter:Uniter",
    "umt": "msvqa.models.umt:UMT",
    "videochat2": "msvqa.models.videochat2:VideoChat2",
}
