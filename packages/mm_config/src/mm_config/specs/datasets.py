"""Where clips and captions come from."""

from __future__ import annotations

import enum

from mm_config.schema.decorator import spec
from mm_config.schema.fields import LOCATION, field
from mm_config.specs.kinds import DatasetSpec, ScorerSpec

COLOURS = ("red", "green", "blue", "yellow")
FURTHER_COLOURS = ("purple", "cyan", "orange", "white")
SHAPES = ("circle", "square")
DIRECTIONS = ("left", "right", "up", "down")


class ShapesStart(enum.Enum):
    """Where shapes are in the first frame."""

    OPPOSITE = "opposite"
    """On the side that they move away from, so that the first frame gives the direction away."""
    MIDDLE = "middle"
    """Near the middle, whatever the direction."""


class ShapesCaption(enum.Enum):
    """What captions say."""

    FULL = "full"
    """Colour, shape and direction: "a red circle moving up"."""
    DIRECTION = "direction"
    """The direction alone: "moving up"."""


@spec("shapes-dataset")
class ShapesSpec(DatasetSpec):
    """Real H.264 clips of moving shapes, rendered on first use and kept.

    A clip shows "a {colour} {shape} moving {direction}"; every combination has clips.
    """

    clips_per_caption: int = field(default=16, ge=1, le=1_000_000, unit="clips")
    """Clips of each combination, differing in size, speed and start."""
    seed: int = field(default=0, ge=0)
    """Seed of sizes, speeds and starts."""
    size: int = field(default=64, ge=32, le=65_536, unit="pixels")
    """Height and width."""
    num_frames: int = field(default=17, ge=2, le=100_000, unit="frames")
    """Frames of each clip."""
    fps: int = field(default=8, ge=1, le=10_000, unit="frames/s")
    """Frame rate."""
    revision: int = field(default=1, ge=1)
    """Version of the renderer."""
    start: ShapesStart = field(default=ShapesStart.OPPOSITE, neutral=ShapesStart.OPPOSITE)
    """Where shapes are in the first frame."""
    caption: ShapesCaption = field(default=ShapesCaption.FULL, neutral=ShapesCaption.FULL)
    """What captions say."""
    colours: tuple[str, ...] = field(default=COLOURS, neutral=COLOURS, min_length=1)
    """Colours of the shapes: red, green, blue, yellow, purple, cyan, orange or white."""

    @property
    def captions(self) -> tuple[str, ...]:
        """The caption of every combination, in the order of `shown`."""
        if self.caption is ShapesCaption.FULL:
            return self.shown
        return tuple(shown[shown.index("moving") :] for shown in self.shown)

    @property
    def shown(self) -> tuple[str, ...]:
        """What clips show: every combination in full, in a fixed order."""
        return tuple(
            f"a {colour} {shape} moving {direction}"
            for colour in self.colours
            for shape in SHAPES
            for direction in DIRECTIONS
        )


@spec("manifest-dataset")
class ManifestSpec(DatasetSpec):
    """Clips listed in a JSON-lines manifest: one object with `path` and `caption` per line."""

    name: str = field(min_length=1)
    """Logical name of the data, looked up in the location table unless `path` is given."""
    revision: str = field(default="1", min_length=1)
    """Revision of the data; change it when the manifest changes."""
    path: str | None = field(default=None, role=LOCATION)
    """Path of the manifest; clips are relative to its folder."""
    digest: str | None = field(default=None, neutral=None)
    """The content that it must be, 64 hex digits as `inputs.json` of a run has them; None takes any."""


@spec("index-dataset")
class IndexSpec(DatasetSpec):
    """Clips in an index that `mm data index` wrote: measured, with the digest of what they are."""

    name: str = field(min_length=1)
    """Logical name of the index, looked up in the location table unless `path` is given."""
    digest: str = field()
    """The content that it must be, 64 hex digits, as the command that wrote it prints."""
    path: str | None = field(default=None, role=LOCATION)
    """Folder of the index."""
    remote: tuple[str, ...] = field(default=(), role=LOCATION)
    """Where clips may be read from over the network, such as `s3://bucket`; none forbids all."""


class Pieces(enum.Enum):
    """Which samples are made of a long clip."""

    WHOLE = "whole"
    """One."""
    CHUNKS = "chunks"
    """Pieces of `piece_frames`, one after the other; a shorter rest is left out."""
    WINDOWS = "windows"
    """Pieces of `piece_frames`, a new one every `piece_stride` frames."""
    UNIFORM = "uniform"
    """`piece_count` pieces of `piece_frames`, from the clip's first to its last, equally far apart."""
    SHOTS = "shots"
    """One for each cut that the source lists."""


@spec("folder-dataset")
class FolderSpec(DatasetSpec):
    """Clips as people have them: a folder, a table or shards, indexed before training and kept by content."""

    name: str = field(min_length=1)
    """Logical name of the data, looked up in the location table unless `path` is given."""
    path: str | None = field(default=None, role=LOCATION)
    """The folder or file: all that `mm data index` takes."""
    revision: str = field(default="1", min_length=1)
    """Revision of the data; change it when the data changes."""
    digest: str | None = None
    """The content that it must be, 64 hex digits; None takes any."""
    path_column: str | None = None
    """The column or key that names a clip's file; None finds it."""
    caption_column: str | None = None
    """The column or key that holds captions; None finds it."""
    pieces: Pieces = Pieces.WHOLE
    """Which samples are made of a long clip."""
    piece_frames: int | None = field(default=None, ge=1, unit="frames")
    """Frames of a piece, in the clip's own rate."""
    piece_stride: int | None = field(default=None, ge=1, unit="frames")
    """Frames from the start of a window to that of the next."""
    piece_count: int | None = field(default=None, neutral=None, ge=1, le=1_000_000)
    """With `pieces = uniform`: pieces of a clip."""
    remote: tuple[str, ...] = field(default=(), role=LOCATION)
    """Where clips may be read from over the network, such as `s3://bucket`; none forbids all."""


@spec("mixture-part")
class MixturePart:
    """A dataset in a mixture."""

    dataset: DatasetSpec
    """Where its clips come from; no mixture itself."""
    weight: float = field(default=1.0, gt=0)
    """Its share of the samples, relative to the other parts."""


@spec("mixture-dataset")
class MixtureSpec(DatasetSpec):
    """Several datasets, of which each step takes samples in stated shares."""

    parts: tuple[MixturePart, ...] = field(min_length=1)
    """What is mixed."""


@spec("shapes-scorer")
class ShapesScorerSpec(ScorerSpec):
    """Measures colour, shape and direction of rendered or generated shapes from pixels alone."""

    revision: int = field(default=1, ge=1)
    """Version of the measurement and its thresholds."""
