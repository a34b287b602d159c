"""Clips and captions: where they come from, how they are read, and in what batches they arrive."""

from __future__ import annotations

import enum

from mm_config.schema.decorator import spec
from mm_config.schema.fields import EXECUTION, field
from mm_config.specs.kinds import DatasetSpec


class Reader(enum.Enum):
    """The library that decodes video files."""

    PYAV = "pyav"
    DECORD = "decord"
    TORCHCODEC = "torchcodec"


class Cache(enum.Enum):
    """What is kept after the first pass over the data."""

    NONE = "none"
    """Nothing: every clip is decoded and encoded each time it is drawn."""
    LATENTS = "latents"
    """Latents and text features: each clip is decoded and encoded once."""


class Order(enum.Enum):
    """The order of clips."""

    SHUFFLED = "shuffled"
    """A permutation of its own in each epoch, fixed by the seed."""
    SEQUENTIAL = "sequential"
    """The manifest's, in every epoch."""


class ClipStart(enum.Enum):
    """Which part of a longer clip is taken."""

    HEAD = "head"
    MIDDLE = "middle"
    RANDOM = "random"
    """A start of its own in each epoch, fixed by the seed."""


class Resize(enum.Enum):
    """How a clip gets its size."""

    STRETCH = "stretch"
    """To height x width, whatever its aspect ratio."""
    CENTER_CROP = "center_crop"
    """To cover height x width; what lies outside of the middle is cut off."""
    RANDOM_CROP = "random_crop"
    """To cover height x width; a random part is kept."""
    AREA = "area"
    """To its own aspect ratio with at most height x width pixels in all."""


class Interpolation(enum.Enum):
    """What a pixel of a resized frame is made of."""

    BICUBIC = "bicubic"
    """Of all pixels that it covers and their neighbours, in one step with the conversion to RGB (swscale)."""
    BILINEAR = "bilinear"
    """Of the four pixels around its centre, as torch's interpolation without antialiasing."""
    BILINEAR_ANTIALIASED = "bilinear_antialiased"
    """Of all pixels that it covers and their neighbours, as torch's bilinear one with antialiasing."""


class Cleaning(enum.Enum):
    """What is taken out of captions."""

    NONE = "none"
    """Nothing; a text encoder may clean what it is given."""
    WHITESPACE = "whitespace"
    """White space beyond single blanks."""
    BASIC = "basic"
    """Also broken encodings and HTML escapes, as Wan's code does."""
    WEB = "web"
    """Also capitals, links, tags, names of files and what else the web's texts have that shows nothing."""
    WEB_WITHOUT_CJK = "web_without_cjk"
    """Also all Chinese and Japanese ideographs, as MindSpeed-MM's `clean_caption` does."""


class CaptionChoice(enum.Enum):
    """Which of a clip's captions is used."""

    FIRST = "first"
    """The first one."""
    RANDOM = "random"
    """One of its own in each epoch, fixed by the seed."""


class Tails(enum.Enum):
    """What becomes of the clips of a bucket that fill no whole batch at the end of an epoch."""

    CARRY = "carry"
    """They begin the bucket's next epoch, so that batches run on across its border."""
    PAD = "pad"
    """Other clips of the bucket fill the batch; they are seen twice in the epoch."""
    DROP = "drop"
    """They are left out of this epoch; a bucket with less than a batch is kept, and padded."""


@spec("bucket")
class BucketSpec:
    """Clips of one size, which are batched together."""

    num_frames: int = field(ge=1, le=100_000, unit="frames")
    """Frames per clip."""
    height: int = field(ge=1, le=65_536, unit="pixels")
    """Height after resizing."""
    width: int = field(ge=1, le=65_536, unit="pixels")
    """Width after resizing."""
    batch_size: int | None = field(default=None, ge=1, le=1_000_000, unit="clips")
    """Clips per optimizer step over all ranks; None takes the data's."""


@spec("caption-texts")
class CaptionSpec:
    """What the text encoder is given of a clip's captions: one is chosen, cleaned and put into a template."""

    choice: CaptionChoice = CaptionChoice.FIRST
    """Which of a clip's captions is used."""
    cleaning: Cleaning = Cleaning.NONE
    """What is taken out of it."""
    templates: tuple[str, ...] = field(default=("{caption}",), min_length=1)
    """Texts in which `{caption}` stands for it, such as `in the style of xyz, {caption}`; of several, each
    epoch has one of its own, fixed by the seed."""


@spec("precomputed")
class PrecomputedSpec:
    """Features that were computed before, instead of decoding and encoding."""

    name: str = field(min_length=1)
    """Logical name of the features, looked up in the location table."""
    revision: str = field(default="1", min_length=1)
    """Revision of the features; change it when they change."""
    latents: bool = True
    """Whether they hold the clips' latents, and those of given frames; else clips are encoded."""
    text: bool = True
    """Whether they hold the captions' features; else captions are encoded."""
    empty_caption: bool = False
    """Whether they hold the features of the empty caption, which caption dropout needs."""
    digest: str | None = field(default=None, neutral=None)
    """The content that they must be, 64 hex digits; None takes any."""


@spec("data")
class DataSpec:
    """What arrives at each step: clips of one size, in an order fixed by the seed."""

    dataset: DatasetSpec
    """Where clips and captions come from."""
    batch_size: int = field(ge=1, le=1_000_000, unit="clips")
    """Clips per optimizer step over all ranks (global batch)."""
    num_frames: int = field(default=81, ge=1, le=100_000, unit="frames")
    """Frames per clip: 4k+1 for an autoencoder that folds 4 frames into one."""
    height: int = field(default=480, ge=1, le=65_536, unit="pixels")
    """Height after resizing."""
    width: int = field(default=832, ge=1, le=65_536, unit="pixels")
    """Width after resizing."""
    fps: float = field(default=16.0, gt=0, unit="frames/s")
    """Frame rate at which clips are sampled."""
    caption_dropout: float = field(default=0.1, ge=0, lt=1)
    """Share of captions replaced by the empty caption, for classifier-free guidance."""
    frame_dropout: float = field(default=0.0, neutral=0.0, ge=0, le=1)
    """Share of samples trained from text alone where the network may be given a clean first frame."""
    max_bad_share: float = field(default=0.01, ge=0, le=1)
    """Share of the clips that may be unreadable before the run stops."""
    reader: Reader = field(default=Reader.PYAV, role=EXECUTION)
    """The library that decodes video files."""
    workers: int = field(default=2, ge=1, le=1_024, role=EXECUTION)
    """Threads that decode clips."""
    cache: Cache = field(default=Cache.NONE, role=EXECUTION)
    """What is kept after the first pass over the data."""
    order: Order = field(default=Order.SHUFFLED, neutral=Order.SHUFFLED)
    """The order of clips."""
    start: ClipStart = field(default=ClipStart.HEAD, neutral=ClipStart.HEAD)
    """Which part of a longer clip is taken."""
    frame_interval: int | None = field(default=None, neutral=None, ge=1, unit="frames")
    """Takes every n-th frame whatever the clip's rate, instead of sampling at `fps`; None samples."""
    speed_factor: float = field(default=1.0, neutral=1.0, ge=1)
    """Longer clips are played faster, at most by this factor, so that more of them is seen."""
    min_num_frames: int | None = field(default=None, neutral=None, ge=1, unit="frames")
    """Shorter clips with at least these frames are used with as many as fit; None wants num_frames of all."""
    drop_short_share: float = field(default=1.0, neutral=1.0, ge=0, le=1)
    """Share of the clips shorter than num_frames that is left out."""
    resize: Resize = field(default=Resize.STRETCH, neutral=Resize.STRETCH)
    """How a clip gets its size."""
    size_multiple: int | None = field(default=None, neutral=None, ge=1, unit="pixels")
    """With `resize = area`: height and width are multiples of this; None takes the pixels of a token."""
    max_aspect_ratio: float | None = field(default=None, neutral=None, ge=1)
    """Clips more elongated than this are left out, in either direction; None leaves out none."""
    min_pixels: int | None = field(default=None, neutral=None, ge=1, unit="pixels")
    """Clips whose frames have fewer pixels than this are left out, before resizing, or with `resize = area`
    as it cuts them; None leaves out none."""
    flip_share: float = field(default=0.0, neutral=0.0, ge=0, le=1)
    """Share of clips that are mirrored left to right."""
    interpolation: Interpolation = field(default=Interpolation.BICUBIC, neutral=Interpolation.BICUBIC)
    """What a pixel of a resized frame is made of."""
    captions: CaptionSpec | None = field(default=None, neutral=None)
    """What the text encoder is given of a clip's captions; None gives the first as it is listed."""
    buckets: tuple[BucketSpec, ...] = field(default=(), neutral=())
    """Sizes that clips are sorted into; none means that all clips get num_frames, height and width."""
    precomputed: PrecomputedSpec | None = field(default=None, neutral=None)
    """Features that were computed before; None decodes and encodes."""
    pin_memory: bool = field(default=False, neutral=False, role=EXECUTION)
    """Whether batches wait in pinned memory."""
    prefetch: int | None = field(default=None, neutral=None, ge=1, le=10_000, role=EXECUTION, unit="batches")
    """Batches that wait ahead; None takes one."""
    tails: Tails = field(default=Tails.CARRY, neutral=Tails.CARRY)
    """What becomes of the clips of a bucket that fill no whole batch at the end of an epoch."""
    tokens_per_batch: int | None = field(default=None, neutral=None, ge=1, unit="tokens")
    """Tokens per optimizer step over all ranks: each size of clips takes as many multiples of batch_size as
    fit; None takes batch_size."""
    shuffle_block: int | None = field(default=None, neutral=None, ge=1, unit="clips")
    """Neighbours in the index that are shuffled among each other, in blocks whose order is shuffled, so that
    few shards are read at a time; None shuffles all clips among each other."""
    max_bad_clips: int | None = field(default=None, neutral=None, ge=0, unit="clips")
    """Clips that may be unreadable before the run stops, whatever their share; None sets no such limit."""
    variants: int = field(default=1, neutral=1, ge=1, le=10_000)
    """With cached features: random starts, crops, flips and choices of captions that each clip is kept
    with."""
    isolated: bool = field(default=False, neutral=False, role=EXECUTION)
    """Whether clips are decoded in processes with limits on time and memory and without network, as
    strangers' files should be."""
    prefetch_mib: int | None = field(default=None, neutral=None, ge=1, role=EXECUTION, unit="MiB")
    """Memory for clips that wait ahead on one rank; None sets no bound beyond prefetch."""
