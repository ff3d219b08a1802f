"""Encoders: pixels to features. `ENCODERS` lists them by name."""

ENCODERS: dict[str, str] = {
    "efficientnet": "msvqa.models.encoders.efficientnet:EfficientNet",
    "resnet": "msvqa.models.encoders.resnet:ResNet",
    "resnext3d": "msvqa.models.encoders.resnext3d:ResNeXt3D",
    "umt": "msvqa.models.encoders.umt:UMTEncoder",
}
