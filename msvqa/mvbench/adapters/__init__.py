"""Adapters: how a model is asked. `ADAPTERS` lists them by name."""

ADAPTERS: dict[str, str] = {
    "run": "msvqa.talker:TrainedRun",
    "server": "msvqa.mvbench.adapters.server:Server",
    "transformers": "msvqa.mvbench.adapters.library:Transformers",
}
"""Any other class is named as `module:Class`."""
