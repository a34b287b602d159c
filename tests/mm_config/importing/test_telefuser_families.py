"""Dumps of each family, wherever its weights lie, with the values that a spec has to have, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_config.families import wan21, wan22
from mm_config.specs.weights import ReleasedWeights
from tests.mm_config.importing.telefuser_dumps import (
    A14,
    ASYNC,
    CLIP,
    DISTILLED,
    FL,
    I480,
    IA14,
    ONE,
    SMALL,
    T13,
    T14,
    TI2V,
    TI5,
    TWO,
    W21,
    W22,
    Kind,
    assert_means,
    models,
    release,
    shards,
)

DUMPS: dict[str, Kind] = {
    "T2V-1.3B": (
        W21,
        SMALL,
        {},
        {
            "model": wan21.T2V_1_3B.model,
            "high_noise": ReleasedWeights(name="Wan-AI/Wan2.1-T2V-1.3B", subfolder=ONE),
            "autoencoder.weights": ReleasedWeights(name="Wan-AI/Wan2.1-T2V-1.3B", subfolder="Wan2.1_VAE.pth"),
            "sampler.solver": "euler",
            "sampler.sigmas": "full_range",
            "sampler.shift": 8.0,
            "runtime.guidance": "sequential",
        },
        (),
    ),
    "T2V-14B in shards, two ranks for guidance and four for tokens": (
        W21,
        release(T14, shards(T14, 6)),
        {
            "enable_denoising_parallel": True,
            "enable_vae_parallel": True,
            "dits.parallel_config.device_ids": [0, 1, 2, 3, 4, 5, 6, 7],
            "dits.parallel_config.cfg_degree": 2,
            "dits.parallel_config.sp_ulysses_degree": 4,
            "vae_config.parallel_config.device_ids": [0, 1, 2, 3, 4, 5, 6, 7],
        },
        {
            "high_noise": ReleasedWeights(name="Wan-AI/Wan2.1-T2V-14B", subfolder=f"{ONE}.index.json"),
            "runtime.guidance": "parallel",
            "runtime.parallel.ulysses": 4,
            "runtime.parallel.autoencoder": True,
            "autoencoder.tiling": True,
        },
        ("torchrun --nproc-per-node=8",),
    ),
    "I2V-14B-480P": (
        W21,
        release(I480, shards(I480, 7), image=f"{I480}/{CLIP}"),
        {"enable_clip_stage": True, "clip_config.torch_dtype": "float16"},
        {"model": wan21.I2V_14B_480P.model, "image_encoder.dtype": "float16", "sampler.shift": 3.0},
        ("--spec.samples.images FILE",),
    ),
    "I2V-14B-720P in the cache of a hub": (
        W21,
        models(
            (
                "wan_video_dit",
                f"/hub/models--Wan-AI--Wan2.1-I2V-14B-720P-Diffusers/snapshots/0abc/transformer/{ONE}",
            ),
            ("wan_video_vae", "/hub/models--Wan-AI--Wan2.1-I2V-14B-720P-Diffusers/snapshots/0abc/vae"),
        ),
        {"enable_clip_stage": True},
        {
            "high_noise": wan21.I2V_14B_720P.high_noise,
            "autoencoder.weights": wan21.part("Wan-AI/Wan2.1-I2V-14B-720P-Diffusers", "vae"),
            "sampler.shift": 5.0,
        },
        ("720P-Diffusers=/hub/models--Wan-AI--Wan2.1-I2V-14B-720P-Diffusers/snapshots/0abc",),
    ),
    "FLF2V-14B": (
        W21,
        release(FL, shards(FL, 7), image=f"{FL}/{CLIP}"),
        {"enable_clip_stage": True, "sample_solver": "unipc"},
        {
            "model": wan21.FLF2V_14B.model,
            "sampler.solver": "unipc",
            "sampler.sigmas": "wan_official",
            "sampler.shift": 16.0,
        },
        ("--spec.samples.last_images FILE",),
    ),
    "T2V-A14B, both experts in lists of shards": (
        W22,
        TWO,
        {},
        {
            "boundary": 0.875,
            "high_noise": ReleasedWeights(name="Wan-AI/Wan2.2-T2V-A14B", subfolder="high_noise_model"),
            "low_noise": ReleasedWeights(name="Wan-AI/Wan2.2-T2V-A14B", subfolder="low_noise_model"),
        },
        (f"Wan-AI/Wan2.2-T2V-A14B={A14}",),
    ),
    "T2V-A14B by wildcards, the low expert listed first": (
        W22,
        release(A14, f"{A14}/low_noise_model/*.safetensors", f"{A14}/high_noise_model/*.safetensors"),
        {"/timestamp": None},
        {
            "high_noise": ReleasedWeights(name="Wan-AI/Wan2.2-T2V-A14B", subfolder="high_noise_model"),
            "low_noise": ReleasedWeights(name="Wan-AI/Wan2.2-T2V-A14B", subfolder="low_noise_model"),
        },
        (),
    ),
    "I2V-A14B": (
        W22,
        release(IA14, shards(f"{IA14}/high_noise_model", 6), shards(f"{IA14}/low_noise_model", 6)),
        {"all.torch_dtype": "torch.bfloat16", "/torch_dtype": "torch.bfloat16"},
        {"model": wan22.I2V_A14B.model, "boundary": 0.9, "dtype": "bfloat16", "image_encoder": None},
        ("--spec.samples.images FILE",),
    ),
    "I2V-A14B 4-step": (
        W22,
        models(("wan_video_dit", [DISTILLED.format("high")]), ("wan_video_dit", [DISTILLED.format("low")])),
        {},
        {
            "distilled": True,
            "high_noise": ReleasedWeights(
                name="Wan2.2-I2V-A14B-Distill", subfolder="dit_high_noise_distill_model_bf16_1022.safetensors"
            ),
            "sampler.steps": 4,
            "sampler.guidance_high_noise": 1.0,
        },
        ("--location Wan2.2-I2V-A14B-Distill=/dev/shm/Wan2.2-I2V-A14B-Distill",),
    ),
    "asynchronous T2V-A14B": (
        ASYNC,
        TWO,
        {},
        {"model": wan22.T2V_A14B.model, "boundary": 0.875},
        ("as Wan22VideoPipeline", "(AsyncWan22VideoPipeline)"),
    ),
    "asynchronous I2V-A14B, of which the autoencoder alone is listed": (
        ASYNC,
        models(("wan_video_vae", f"{IA14}/Wan2.1_VAE.pth")),
        {},
        {
            "model": wan22.I2V_A14B.model,
            "high_noise": ReleasedWeights(name="Wan-AI/Wan2.2-I2V-A14B", subfolder="high_noise_model"),
            "low_noise": ReleasedWeights(name="Wan-AI/Wan2.2-I2V-A14B", subfolder="low_noise_model"),
        },
        ("the dump lists no such model",),
    ),
    "TI2V-5B": (
        TI2V,
        release(TI5, shards(TI5, 3)),
        {},
        {
            "model": wan22.TI2V_5B.model,
            "high_noise": ReleasedWeights(name="Wan-AI/Wan2.2-TI2V-5B", subfolder=f"{ONE}.index.json"),
            "autoencoder.weights": ReleasedWeights(name="Wan-AI/Wan2.2-TI2V-5B", subfolder="Wan2.2_VAE.pth"),
            "sampler.solver": "unipc",
        },
        (),
    ),
    "TI2V-5B with the Euler sampler that is called dpm++": (
        TI2V,
        release(TI5, shards(TI5, 3)),
        {"sample_solver": "dpm++"},
        {"sampler.solver": "euler", "sampler.sigmas": "full_range"},
        ("builds TeleFuser's Euler sampler",),
    ),
    "paths that nobody filled in": (
        W21,
        release("/path/to/Wan2.1-T2V-1.3B", f"/path/to/Wan2.1-T2V-1.3B/{ONE}"),
        {"/timestamp": "None"},
        {"high_noise": ReleasedWeights(name="Wan-AI/Wan2.1-T2V-1.3B", subfolder=ONE)},
        ("--location Wan-AI/Wan2.1-T2V-1.3B=FOLDER",),
    ),
    "a small decoder of its own weights": (
        W21,
        [
            *models(("wan_video_dit", f"{T13}/{ONE}")),
            {"name": "taew2_1", "path": "/m/tae.pth", "class": "TAEHV"},
        ],
        {},
        {"autoencoder.weights": ReleasedWeights(name="Wan-AI/Wan2.1-T2V-1.3B", subfolder="Wan2.1_VAE.pth")},
        ("the spec decodes by Wan's own autoencoder",),
    ),
}


@pytest.mark.parametrize("name", DUMPS)
def test_a_dump_is_the_spec_that_it_means(name: str, tmp_path: Path) -> None:
    assert_means(DUMPS[name], tmp_path)
