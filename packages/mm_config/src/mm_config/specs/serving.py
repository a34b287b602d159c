"""How generation fits a device: parallel ranks, residency, and the approximations that make it faster."""

from __future__ import annotations

import enum

from mm_config.schema.decorator import spec
from mm_config.schema.fields import EXECUTION, field
from mm_config.specs.npu import NpuSpec
from mm_config.specs.parallel import NO_COMPILE, AttentionImpl, CompileSpec


class Residency(enum.Enum):
    """Where the experts wait while they don't work."""

    RESIDENT = "resident"
    """On the device."""
    SWAP = "swap"
    """In the host's memory, whole."""
    LAYERWISE = "layerwise"
    """In the host's memory; blocks are brought to the device as they are needed."""
    AUTO = "auto"
    """The fastest of them that fits the device by the plan."""


class GuidanceMode(enum.Enum):
    """How the two passes of classifier-free guidance are computed."""

    BATCHED = "batched"
    """As one pass of twice the batch."""
    SEQUENTIAL = "sequential"
    """One after the other, with half the memory."""
    PARALLEL = "parallel"
    """On two ranks."""


@spec("generation-parallel")
class GenerationParallelSpec:
    """Ranks that make videos together."""

    data: int = field(default=1, ge=1, role=EXECUTION, unit="ranks")
    """Groups of ranks that make different videos."""
    ulysses: int = field(default=1, ge=1, role=EXECUTION, unit="ranks")
    """Ranks that share the tokens and exchange heads in attention; divides the heads."""
    ring: int = field(default=1, ge=1, role=EXECUTION, unit="ranks")
    """Ranks that share the tokens and pass keys and values round."""
    tensor: int = field(default=1, ge=1, role=EXECUTION, unit="ranks")
    """Ranks that share the matrices of attention and feed-forward; divides the heads."""
    fsdp: bool = field(default=False, role=EXECUTION)
    """Whether the ranks that make one video share one copy of the weights."""
    autoencoder: bool = field(default=False, role=EXECUTION)
    """Whether the ranks that make one video share the autoencoder's work: its tiles or, where it makes none,
    the latent frames."""
    timeout_seconds: int = field(default=600, ge=1, le=31_536_000, role=EXECUTION, unit="s")
    """Longest wait of a rank for the others."""


@spec("residency")
class ResidencySpec:
    """Where experts and encoders wait."""

    experts: Residency = field(default=Residency.RESIDENT, role=EXECUTION)
    """Where the experts wait."""
    encoders: Residency = field(default=Residency.RESIDENT, role=EXECUTION)
    """Where the text encoder, the image encoder and the autoencoder wait; layerwise has blocks of the text
    encoder come one by one, and the others whole."""
    pin_memory: bool = field(default=True, role=EXECUTION)
    """Whether what waits lies in the host's memory, pinned; else, and on a CPU, it is read from its files."""
    share: float = field(default=1.0, ge=0, le=1, role=EXECUTION)
    """Share of the blocks that wait outside in layerwise residency."""
    prefetch: int = field(default=1, ge=0, role=EXECUTION, unit="blocks")
    """Blocks that are brought ahead in layerwise residency."""


class SparsePattern(enum.Enum):
    """Which keys a query sees in sparse attention."""

    RADIAL = "radial"
    """Fewer the farther frames are apart, and all of the first frame: Radial Attention, arXiv 2506.19852."""
    LOCAL = "local"
    """Those in a window around it, along frames, height and width."""


@spec("sparse-attention")
class SparseAttentionSpec:
    """Attention that leaves out distant keys: faster, another result."""

    pattern: SparsePattern = SparsePattern.RADIAL
    """Which keys a query sees."""
    dense_steps: int = field(default=12, ge=0, unit="steps")
    """Denoising steps with full attention, the sampler's first."""
    dense_layers: int = field(default=0, ge=0)
    """First blocks with full attention."""
    decay_factor: float = field(default=1.0, gt=0)
    """Radial: factor on the windows, which shrink with the distance in time; 1 is the paper's."""
    window: int = field(default=6, ge=1, unit="tokens")
    """Local: reach of the window along each axis."""
    block_size: int = field(default=128, ge=1, unit="tokens")
    """Neighbouring tokens that are kept or left out together; CUDA's kernels are for multiples of 128."""


class ApproximateAttention(enum.Enum):
    """Attention that computes with few bits: faster, another result."""

    SAGE = "sage"
    """SageAttention: queries and keys are int8 by blocks, keys without their mean."""
    FLASH_4 = "flash_4"
    """FlashAttention 4, whose exponentials are polynomials."""


class QuantFormat(enum.Enum):
    """Formats of quantised weights."""

    FP8 = "fp8"
    INT8 = "int8"
    NF4 = "nf4"
    MXFP8 = "mxfp8"
    MXFP6 = "mxfp6"
    MXFP4 = "mxfp4"
    NVFP4 = "nvfp4"


@spec("quantization")
class QuantizationSpec:
    """Linear layers with few bits: less memory, another result."""

    format: QuantFormat = QuantFormat.FP8
    """Format of the weights."""
    modules: tuple[str, ...] = field(default=("blocks.*",), min_length=1)
    """Glob patterns over module names whose linear layers are quantised."""
    skip: tuple[str, ...] = ("proj_out", "condition_embedder", "patch_embedding")
    """Glob patterns over module names that are left as they are."""
    group_size: int | None = field(default=None, ge=1)
    """Weights with a scale of their own; None takes one per row."""
    dynamic: bool = field(default=False, neutral=False)
    """Whether the layers' inputs are rounded too, each token's by a scale of its own, so that products are
    8-bit."""


@spec("feature-cache")
class FeatureCacheSpec:
    """Skips blocks in denoising steps that are fixed in advance: faster, another result."""

    dense_share: float = field(default=0.2, ge=0, le=1)
    """Share of each expert's first steps that are always computed."""
    threshold: float = field(default=0.24, ge=0)
    """Summed relative change, measured exactly, of what the blocks add, up to which steps are skipped."""
    max_skipped: int = field(default=2, ge=1, unit="steps")
    """Steps skipped in a row at most."""
    derivatives: int = field(default=1, ge=0, le=100)
    """Order of the extrapolation from computed steps over skipped ones; 0 takes the last one's."""
    skipped: tuple[int, ...] | None = field(default=None, neutral=None, ge=0, le=100_000, unit="steps")
    """Steps that skip the blocks, from 0, as `mm compare --calibrate` finds them; None is not known yet."""


NO_GENERATION_PARALLEL = GenerationParallelSpec(
    data=1, ulysses=1, ring=1, tensor=1, fsdp=False, autoencoder=False, timeout_seconds=600
)
ALL_RESIDENT = ResidencySpec(
    experts=Residency.RESIDENT, encoders=Residency.RESIDENT, pin_memory=True, share=1.0, prefetch=1
)


@spec("infer-runtime")
class InferRuntimeSpec:
    """Where and how videos are made."""

    device: str = field(default="auto", role=EXECUTION)
    """`auto` (an accelerator if there is one), `cpu`, `cuda` or `npu`."""
    batch_size: int = field(default=1, ge=1, le=10_000, role=EXECUTION, unit="videos")
    """Videos denoised at once."""
    build_missing: bool = field(default=False, role=EXECUTION)
    """Whether weights that no finished run has made are trained first."""
    attention: AttentionImpl = field(default=AttentionImpl.AUTO, neutral=AttentionImpl.AUTO, role=EXECUTION)
    """The implementation of attention."""
    guidance: GuidanceMode = field(default=GuidanceMode.BATCHED, neutral=GuidanceMode.BATCHED, role=EXECUTION)
    """How the two passes of classifier-free guidance are computed."""
    residency: ResidencySpec = field(default=ALL_RESIDENT, neutral=ALL_RESIDENT, role=EXECUTION)
    """Where experts and encoders wait."""
    parallel: GenerationParallelSpec = field(
        default=NO_GENERATION_PARALLEL, neutral=NO_GENERATION_PARALLEL, role=EXECUTION
    )
    """Ranks that make videos together."""
    compile: CompileSpec = field(default=NO_COMPILE, neutral=NO_COMPILE, role=EXECUTION)
    """Compilation of the networks."""
    deterministic: bool = field(default=False, neutral=False, role=EXECUTION)
    """Whether only deterministic kernels may run, so that two runs are equal to the bit."""
    compile_autoencoder: bool = field(default=False, neutral=False, role=EXECUTION)
    """Whether the autoencoder is compiled too, as `compile` says."""
    preview_every: int | None = field(
        default=None, neutral=None, ge=1, le=100_000, role=EXECUTION, unit="steps"
    )
    """After how many steps a preview of the video is made from the latents; None makes none."""
    npu: NpuSpec | None = field(default=None, neutral=None, role=EXECUTION)
    """Environment variables of an Ascend NPU's libraries; None leaves them as the shell has them."""
