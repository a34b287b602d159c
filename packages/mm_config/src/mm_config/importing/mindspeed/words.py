"""Words of MindSpeed-MM's files as values of our specs."""

from __future__ import annotations

from mm_config.importing.values import choice
from mm_config.specs.data import Order, Reader
from mm_config.specs.diffusion import Solver
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import LatentMode
from mm_config.specs.monitoring import Stacks
from mm_config.specs.optim import Decay
from mm_config.specs.serving import Residency

DTYPE = choice(
    {
        "bf16": Dtype.BFLOAT16,
        "float32": Dtype.FLOAT32,
        "fp32": Dtype.FLOAT32,
        "float16": Dtype.FLOAT16,
        "fp16": Dtype.FLOAT16,
        "half": Dtype.FLOAT16,
    }
)
"""`bfloat16` is missing: MindSpeed-MM's `get_dtype` raises on it."""
FSDP_DTYPE = choice(
    {"bf16": Dtype.BFLOAT16, "fp32": Dtype.FLOAT32, "float32": Dtype.FLOAT32, "fp16": Dtype.FLOAT16}
)
LATENT_MODE = choice({False: LatentMode.MODE, True: LatentMode.SAMPLE})
READER = choice({"DecordVideo": Reader.DECORD, "AvVideo": Reader.PYAV, "TorchvisionVideo": Reader.PYAV})
ORDER = choice(
    {
        "LengthGroupedSampler": Order.SHUFFLED,
        "BaseRandomBatchSampler": Order.SHUFFLED,
        "SequentialSampler": Order.SEQUENTIAL,
    }
)
DECAY = choice({"constant": Decay.CONSTANT, "linear": Decay.LINEAR, "cosine": Decay.COSINE})
STACKS = choice({"python": Stacks.PYTHON, "all": Stacks.ALL})
NPU_LEVEL = choice({"level0": 0, "level1": 1, "level2": 2})
SOLVER = choice({"UniPCMultistepScheduler": Solver.UNIPC, "DPMSolverMultistepScheduler": Solver.DPMPP_2M})
DEVICE = choice({"npu": "npu", "cuda": "cuda", "cpu": "cpu"})
OFFLOAD = choice({True: Residency.SWAP, False: Residency.RESIDENT})
