"""Processors: what becomes of a medium before a model sees it. `PROCESSORS` lists them by name."""

PROCESSORS: dict[str, str] = {
    "clips": "msvqa.data.processors.clips:Clips",
    "features": "msvqa.data.processors.features:Features",
    "frame_features": "msvqa.data.processors.frame_features:FrameFeatures",
    "frames": "msvqa.data.processors.frames:Frames",
    "vectors": "msvqa.data.processors.vectors:Vectors",
    "none": "msvqa.data.processors.nothing:Nothing",
}
