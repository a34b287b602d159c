"""Trains Wan2.2 T2V-A14B's high-noise expert on your clips, with MindSpeed-MM's settings.

Say where your clips, a folder with a manifest.jsonl, and the release lie:
`--location clips=DIR --location Wan-AI/Wan2.2-T2V-A14B-Diffusers=DIR`.
"""

from mm_config import main
from mm_config.families import wan22
from mm_config.specs import (
    AdamWSpec,
    CheckpointSpec,
    DataSpec,
    Dtype,
    Expert,
    FsdpSpec,
    ManifestSpec,
    PrecisionSpec,
    Recompute,
    RecomputeSpec,
    ScheduleSpec,
    TrainRuntimeSpec,
)

SPEC = wan22.T2V_A14B.train(
    Expert.HIGH_NOISE,
    # One clip on each of 8 devices. The official networks were made from 81 frames. MindSpeed-MM takes every
    # frame whatever a clip's rate, and keeps its aspect ratio (frame_interval=1, resize=AREA).
    data=DataSpec(
        dataset=ManifestSpec(name="clips"),
        batch_size=8,
        num_frames=49,
        # MindSpeed-MM drops no captions; that leaves guidance to what the released network knows.
        caption_dropout=0.0,
        workers=8,
    ),
    optim=AdamWSpec(lr=1e-5, weight_decay=0.01),
    schedule=ScheduleSpec(steps=5000),
    precision=PrecisionSpec(compute=Dtype.BFLOAT16, reduce=Dtype.FLOAT32),
    seed=1234,
    fsdp=FsdpSpec(wrap=("blocks.*", "proj_out")),
    recompute=RecomputeSpec(mode=Recompute.FULL),
    # MindSpeed-MM saves every 10,000 steps, of 5,000.
    checkpoint=CheckpointSpec(every_steps=1000),
    runtime=TrainRuntimeSpec(log_every=1),
)

if __name__ == "__main__":
    main(SPEC)
