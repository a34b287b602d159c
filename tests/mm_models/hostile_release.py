"""A small honest folder of everything that strangers give, and the doors that open its parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

import mm_models
from experiments import tiny_high
from mm_config import dump, replace
from mm_config.cli.app import app
from mm_config.options.locations import Location, Locations, load_locations
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
from mm_config.specs.encoders import ClipImageEncoderSpec, WanAutoencoderSpec
from mm_config.specs.weights import ReleasedWeights
from mm_data.manifest import read_manifest
from mm_models import checkpoint
from mm_models.autoencoders.wan_names import architecture
from mm_models.lora.configuration import to_json
from mm_models.lora.files import read_adapters
from tests.mm_models import lora_files
from tests.mm_models.weight_files import T2V, values
from tests.tiny_clip import write_clip
from tests.tiny_umt5 import spec_of, write_release

WORDS = ["a", "red", "circle"]
VAE = WanAutoencoderSpec(
    weights=ReleasedWeights(name="given", subfolder="vae"),
    latent_channels=4,
    base_dim=8,
    dim_mult=(1, 1, 1, 1),
    num_res_blocks=1,
)
CLIP = ClipImageEncoderSpec(
    weights=ReleasedWeights(name="given", subfolder="image_encoder"),
    image_dim=16,
    image_size=28,
    patch_size=14,
    num_layers=2,
    num_heads=2,
    d_ff=24,
)
UMT5 = replace(spec_of(WORDS), "weights.name", "given")


def write(folder: Path) -> None:
    """Writes it all."""
    write_release(folder, WORDS)
    statistics: dict[str, Any] = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    AutoencoderKLWan(**architecture(VAE), **statistics).save_pretrained(folder / "vae")
    write_clip(folder / "image_encoder", layers=2)
    tensors = values(T2V)
    (folder / "transformer").mkdir()
    save_file(tensors, folder / "transformer/diffusion_pytorch_model.safetensors")
    (folder / "transformer/config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel"}))
    _write_shards(folder / "sharded", tensors)
    (folder / "pickled").mkdir()
    torch.save(tensors, folder / "pickled/w.pt")
    (folder / "release/mp_rank_00").mkdir(parents=True)
    torch.save({"model": tensors}, folder / "release/mp_rank_00/model_optim_rng.pt")
    (folder / "latest_checkpointed_iteration.txt").write_text("release")
    save_distributed(tensors, checkpoint_id=folder / "dcp", no_dist=True)
    checkpoint.save(folder / "checkpoint", {"model": tensors}, {"step": 1})
    adapter = lora_files.adapter_of()
    lora_files.write(
        folder / "adapter/adapter_model.safetensors",
        lora_files.halves(adapter, "base_model.model.", "lora_A", "lora_B"),
    )
    (folder / "adapter/adapter_config.json").write_text(json.dumps(to_json(adapter)))
    dump(tiny_high.SPEC, folder / "spec.json")
    dump(tiny_high.SPEC, folder / "spec.yaml")
    run = open_run(replace(tiny_high.SPEC, "name", "given"), RunOptions(folder / "runs"))
    run.finish({})
    run.path.rename(folder / "run")
    (folder / "clips.jsonl").write_text('{"path": "a.mp4", "caption": "a"}\n')
    (folder / "locations.yaml").write_text("given: .\n")


def _write_shards(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    folder.mkdir()
    names = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(tensors)}
    for file in sorted(set(names.values())):
        save_file({name: tensors[name] for name, its in names.items() if its == file}, folder / file)
    (folder / "w.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def _locations(folder: Path) -> Locations:
    return Locations((Location("given", folder, "test"),))


DOORS: Mapping[str, Callable[[Path], Any]] = {
    "text": lambda folder: _built(mm_models.build_text_encoder, UMT5, folder),
    "autoencoder": lambda folder: _built(mm_models.build_autoencoder, VAE, folder),
    "image": lambda folder: _built(mm_models.build_image_encoder, CLIP, folder),
    "transformer": lambda folder: _mm("inspect", folder / "transformer"),
    "sharded": lambda folder: _mm("inspect", folder / "sharded"),
    "pickled": lambda folder: _mm("inspect", folder / "pickled/w.pt"),
    "mindspeed": lambda folder: _mm("inspect", folder),
    "dcp": lambda folder: _mm("inspect", folder / "dcp"),
    "checkpoint": lambda folder: _mm("inspect", folder / "checkpoint"),
    "adapter": lambda folder: bool(read_adapters(folder / "adapter")) and 0,
    "json": lambda folder: _mm("hash", folder / "spec.json"),
    "yaml": lambda folder: _mm("hash", folder / "spec.yaml"),
    "run": lambda folder: _mm("show", folder / "run"),
    "manifest": lambda folder: bool(read_manifest(folder / "clips.jsonl")) and 0,
    "locations": lambda folder: bool(load_locations((), folder)) and 0,
}


def _built(build: Callable[..., Any], spec: Any, folder: Path) -> int:
    build(spec, locations=_locations(folder))
    return 0


def _mm(verb: str, path: Path) -> int:
    # `exit_status` is the caller's: what the verb prints and returns is what a user sees.
    return app([verb, str(path)])
