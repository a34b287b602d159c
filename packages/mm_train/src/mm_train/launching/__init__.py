"""Starting a training on many machines: what a launch says, and what schedulers make of it; no torch."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_train.launching.specs import KubernetesSpec, LaunchSpec, SlurmSpec
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
