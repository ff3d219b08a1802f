"""Ray's trainer without helper processes that have nothing to do here; each costs seconds to start.

Ray has no setting for them. What is overridden is private: where a version of Ray has other names,
its trainer does all that it does by default. The controller imports this module, and so no torch.
"""

from typing import Any

from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from msvqa.engine import cluster

try:
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )
except ImportError:

    class LeanTrainer(DataParallelTrainer):
        """The trainer as it is."""

else:

    class _NoDatasets(DatasetsCallback):
        """Hands on the settings of Ray Data, and starts no process that would split data sets."""

        def before_init_train_context(self, workers: Any) -> dict[str, Any]:
            """Return no provider of data sets, which is optional."""
            return {}

    class LeanTrainer(DataParallelTrainer):  # type: ignore[no-redef]
        """Starts no process that splits data sets, unless there are some.

        On a cluster of this process's own it starts none either that frees what a controller leaves
        which was killed: the command ends then, and the cluster with it. Trials have processes of
        their own, and there it stays: the search goes on.
        """

        def _create_default_callbacks(self, *args: Any, **options: Any) -> list[Any]:
            callbacks = super()._create_default_callbacks(*args, **options)
            if cluster.is_own():
                callbacks = [c for c in callbacks if type(c) is not PlacementGroupCleanerCallback]
            if self.datasets:
                return callbacks
            return [
                _NoDatasets(train_run_context=self.train_run_context, datasets={})
                if type(c) is DatasetsCallback
                else c
                for c in callbacks
            ]
