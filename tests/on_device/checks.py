"""What is computed on a device and on the CPU, to be compared: operations, networks, training, generation.

`scripts/verify_on_device.py` runs these on hardware. They are small, and go the ways that large models go.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

import mm_models
from experiments import tiny, tiny_high
from mm_config import dump, replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs.data import Cache
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import Umt5TextEncoderSpec, WanAutoencoderSpec
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights
from mm_infer import load
from mm_models.seeding import generator
from mm_models.weights.layouts import read_group
from mm_train import train
from tests.npu_schema.agreement import normal
from tests.npu_standin.test_networks import IMAGE_TO_VIDEO, LATENTS, TEXT_TO_VIDEO, drawn, inputs, passes
from tests.on_device.comparing import BFLOAT16, CPU, DeviceCheck, Outputs, Place
from tests.on_device.operations import activation, attention, modulation, rms_norm, rotation

ROOT = Path(__file__).parents[2]


def transformer(dtype: torch.dtype, place: Place) -> Outputs:
    """Values and gradients of Wan's transformer: from text, per-token timesteps, from an image."""
    found: Outputs = {}
    image = normal(
        LATENTS[0], IMAGE_TO_VIDEO.image_positions or 5, IMAGE_TO_VIDEO.image_dim or 0, name="image"
    )
    for name, spec, arguments in (
        ("text", TEXT_TO_VIDEO, inputs(TEXT_TO_VIDEO)),
        ("tokens", TEXT_TO_VIDEO, inputs(TEXT_TO_VIDEO, per_token=True)),
        ("image", IMAGE_TO_VIDEO, [*inputs(IMAGE_TO_VIDEO), image]),
    ):
        network = drawn(spec, place.device, dtype)
        out, gradients = passes(network, [one.to(place.device) for one in arguments])
        found[f"{name}, values"] = out
        found[f"{name}, gradients"] = torch.cat([one.float().flatten() for one in gradients.values()])
    return found


def autoencoder(place: Place) -> Outputs:
    """Wan's autoencoder there and back."""
    spec = WanAutoencoderSpec(
        weights=RandomWeights(seed=1), latent_channels=4, base_dim=8, dim_mult=(1, 1, 1, 1), num_res_blocks=1
    )
    wan = mm_models.build_autoencoder(spec, device=place.device)
    video = torch.rand(1, 3, 5, 32, 32, generator=generator("clip")) * 2 - 1
    latents = wan.encode(video.to(place.device))
    return {"latents": latents, "video": wan.decode(normal(*latents.shape).to(place.device))}


WORDS = ("<pad>", "</s>", "<unk>", "a", "red", "blue", "circle", "square", "moving", "right")
UMT5: dict[str, Any] = {"vocab_size": len(WORDS), "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 24}


def text_encoder(place: Place) -> Outputs:
    """UMT5 over captions of different lengths, one of them empty."""
    torch.manual_seed(0)
    UMT5EncoderModel(UMT5Config(d_model=16, **UMT5)).save_pretrained(place.folder / "umt5" / "text_encoder")
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(place.folder / "umt5" / "tokenizer")
    weights = ReleasedWeights(name="umt5", subfolder="text_encoder")
    encoder = mm_models.build_text_encoder(
        Umt5TextEncoderSpec(weights=weights, text_dim=16, max_tokens=8, dtype=Dtype.FLOAT32, **UMT5),
        device=place.device,
        locations=Locations((Location("umt5", place.folder / "umt5", "the check"),)),
    )
    return {"features": encoder.encode(["a red circle moving right", "blue square", "red"])}


STEPS = 4
SMALL: dict[str, Any] = {
    "model.hidden_size": 32,
    "model.num_attention_heads": 2,
    "model.ffn_dim": 64,
    "model.num_layers": 2,
    "data.dataset.clips_per_caption": 1,
    "data.batch_size": 8,
    "data.cache": Cache.LATENTS,
    "optim.lr": 5e-3,
    "schedule.steps": STEPS,
    "schedule.warmup_steps": 1,
}


def training(place: Place) -> Outputs:
    """Losses, gradient norms and weights of a few steps on clips that it renders."""
    return _trained(train(_training(place, "training"), RunOptions(runs_dir=place.folder / "runs")).run_dir)


EXPERIMENT = """from pathlib import Path

from mm_config import load, main

if __name__ == "__main__":
    main(load(Path(__file__).with_suffix(".json")))
"""


def two_ranks(place: Place) -> Outputs:
    """The same training under FSDP2 on two ranks; on the CPU, one process without sharding."""
    if place.expected:
        return training(place)
    file = place.folder / "two_ranks.py"
    file.write_text(EXPERIMENT)
    dump(_training(place, "two_ranks"), file.with_suffix(".json"))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(file)]
    done = subprocess.run(
        [sys.executable, *command, "--runs-dir", str(place.folder / "runs")], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"torchrun ended with {done.returncode}: {done.stderr[-2000:]}")
    (run_dir,) = (place.folder / "runs").glob("two_ranks/*/")
    return _trained(run_dir)


def _training(place: Place, name: str) -> TrainSpec:
    return replace(tiny_high.SPEC, {**SMALL, "name": name, "runtime.device": place.device.type})


def _trained(run_dir: Path) -> Outputs:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    step = run_dir / "checkpoints" / f"step-{STEPS:08d}"
    weights = {name: one.read() for name, one in read_group(step, "model").items()}
    return {
        "losses": torch.tensor([line["loss"] for line in lines]),
        "gradient norms": torch.tensor([line["grad_norm"] for line in lines]),
        "weights": torch.cat([one.flatten() for one in weights.values()]),
    }


def generation(place: Place) -> Outputs:
    """Latents and video of two experts with classifier-free guidance."""
    experts = {"high_noise": "transformer", "low_noise": "transformer_2"}
    changes: dict[str, Any] = {path: value for path, value in SMALL.items() if path.startswith("model.")}
    changes |= {name: ReleasedWeights(name="drawn", subfolder=folder) for name, folder in experts.items()}
    changes |= {"sampler.steps": 6, "runtime.device": place.device.type, "num_frames": 17}
    spec = replace(tiny.SPEC, changes)
    for seed, folder in enumerate(experts.values()):
        network = mm_models.build(spec.model, device=CPU)
        mm_models.initialize(network, seed)
        weights = dict(network.state_dict())
        # Zero at first, which would hide everything before it.
        weights["proj_out.weight"] = 0.3 * normal(*weights["proj_out.weight"].shape)
        (place.folder / "drawn" / folder).mkdir(parents=True, exist_ok=True)
        save_file(weights, place.folder / "drawn" / folder / "diffusion_pytorch_model.safetensors")
    options = RunOptions(
        runs_dir=place.folder / "runs",
        locations=Locations((Location("drawn", place.folder / "drawn", "the check"),)),
    )
    pipeline = load(spec, options=options)
    requests = [GenerationRequest(prompt=text, seed=1) for text in tiny.SPEC.samples.prompts[:2]]
    latents = pipeline.denoise(requests)
    return {"latents": latents, "video": pipeline.decode(latents)}


def _both(name: str, about: str, compute: Callable[[torch.dtype, Place], Outputs]) -> tuple[DeviceCheck, ...]:
    return (
        DeviceCheck(f"{name}_float32", about, partial(compute, torch.float32)),
        DeviceCheck(f"{name}_bfloat16", about, partial(compute, torch.bfloat16), BFLOAT16),
    )


CHECKS: tuple[DeviceCheck, ...] = (
    *_both("attention", "attention against the reference, forward and backward, every mask", attention),
    *_both("rms_norm", "RMS norm against the reference, forward and backward", rms_norm),
    *_both("rotation", "rotary embedding against the reference, forward and backward", rotation),
    *_both("modulation", "modulated layer norm and gated residual against the reference", modulation),
    *_both("activation", "GELU, exact and in its tanh form", activation),
    *_both("transformer", "Wan's transformer, values and gradients", transformer),
    DeviceCheck("autoencoder", "Wan's autoencoder, encode and decode", autoencoder),
    DeviceCheck("text_encoder", "UMT5", text_encoder),
    DeviceCheck("training", "training steps: losses, gradient norms, weights", training, 1e-3),
    DeviceCheck("two_ranks", "the same under FSDP2 on two ranks", two_ranks, 1e-3, ranks=2),
    DeviceCheck("generation", "two experts, latents and video", generation, 1e-3),
)
"""In the order in which they are run: what others build on comes first."""
