"""The classes that specs are made of."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.specs.data import (
        BucketSpec,
        Cache,
        CaptionChoice,
        CaptionSpec,
        Cleaning,
        ClipStart,
        DataSpec,
        Interpolation,
        Order,
        PrecomputedSpec,
        Reader,
        Resize,
        Tails,
    )
    from mm_config.specs.datasets import (
        COLOURS,
        DIRECTIONS,
        FURTHER_COLOURS,
        SHAPES,
        FolderSpec,
        IndexSpec,
        ManifestSpec,
        MixturePart,
        MixtureSpec,
        Pieces,
        ShapesCaption,
        ShapesScorerSpec,
        ShapesSpec,
        ShapesStart,
    )
    from mm_config.specs.diffusion import (
        NUM_TRAIN_TIMESTEPS,
        Expert,
        FlowMatchingSpec,
        LossWeighting,
        NoiseDraw,
        SamplerSpec,
        SigmaTable,
        Solver,
        TimestepSampling,
        TimestepScope,
    )
    from mm_config.specs.dtype import Dtype
    from mm_config.specs.encoders import (
        ClipImageEncoderSpec,
        DctAutoencoderSpec,
        HashedTextEncoderSpec,
        LatentMode,
        Umt5TextEncoderSpec,
        WanAutoencoderSpec,
    )
    from mm_config.specs.family import Family
    from mm_config.specs.infer import ImageFit, InferSpec
    from mm_config.specs.kinds import (
        AutoencoderSpec,
        Conditioning,
        DatasetSpec,
        ImageEncoderSpec,
        ModelSpec,
        OptimizerSpec,
        ScorerSpec,
        Split,
        StageSpec,
        TextEncoderSpec,
        Weights,
    )
    from mm_config.specs.lora import AppliedLoraSpec, LoraInit, LoraSpec
    from mm_config.specs.monitoring import (
        MemorySnapshotSpec,
        ProfilerSpec,
        Stacks,
        TrainingSamplesSpec,
        ValidationSpec,
    )
    from mm_config.specs.npu import (
        Affinity,
        InductorBackend,
        NpuAffinitySpec,
        NpuAllocatorSpec,
        NpuCoresSpec,
        NpuSpec,
        PageSize,
    )
    from mm_config.specs.optim import AdamWSpec, Decay, EmaSpec, MuonSpec, ParameterGroupSpec, ScheduleSpec
    from mm_config.specs.parallel import (
        AttentionImpl,
        CompileBackend,
        CompileMode,
        CompileSpec,
        FsdpSpec,
        ParallelSpec,
        Recompute,
        RecomputeSpec,
    )
    from mm_config.specs.requests import GenerationRequest, RequestSetting, Resolution, SamplesSpec
    from mm_config.specs.serving import (
        ApproximateAttention,
        FeatureCacheSpec,
        GenerationParallelSpec,
        GuidanceMode,
        InferRuntimeSpec,
        QuantFormat,
        QuantizationSpec,
        Residency,
        ResidencySpec,
        SparseAttentionSpec,
        SparsePattern,
    )
    from mm_config.specs.stages import LanczosUpscaleSpec
    from mm_config.specs.train import CheckpointSpec, PrecisionSpec, StartMode, TrainRuntimeSpec, TrainSpec
    from mm_config.specs.wan import WanTransformerSpec
    from mm_config.specs.weights import RandomWeights, ReleasedWeights, SavedWeights, TrainedBy
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
