"""Where weights come from: drawn, a named release, a checkpoint, or the outcome of a training."""

from __future__ import annotations

from mm_config.schema.decorator import spec
from mm_config.schema.fields import LOCATION, field
from mm_config.schema.root import RootSpec
from mm_config.specs.kinds import Weights


@spec("random-weights")
class RandomWeights(Weights):
    """Freshly drawn weights."""

    seed: int = field(default=0, ge=0)
    """Seed of the draw; each parameter is keyed by it and the parameter's name."""


@spec("released-weights")
class ReleasedWeights(Weights):
    """A published release, found by its name in the location table."""

    name: str = field(min_length=1)
    """Logical name, such as `Wan-AI/Wan2.2-T2V-A14B-Diffusers`."""
    revision: str = "main"
    """Revision or digest of the release."""
    subfolder: str = ""
    """Folder inside the release, such as `transformer_2`; of networks and adapters also a file."""
    digest: str | None = field(default=None, neutral=None)
    """The content that it must be, 64 hex digits as `inputs.json` of a run has them; None takes any."""


@spec("trained-by")
class TrainedBy(Weights):
    """The outcome of a training spec, found in the run index by that spec's hash."""

    spec: RootSpec = field(by_hash=True)
    """The training spec."""
    average: bool = field(default=False, neutral=False)
    """Whether the moving average that it kept is taken, instead of its last weights."""


@spec("saved-weights")
class SavedWeights(Weights):
    """A checkpoint of a training, any of its steps, named by what it holds."""

    digest: str = field()
    """The content that it must be, 64 hex digits as `inputs.json` of a run has them."""
    path: str | None = field(default=None, role=LOCATION)
    """Its folder; None looks through the runs."""
    average: bool = False
    """Whether the moving average in it is taken, instead of the weights."""
