"""`mm generate` on a folder in diffusers' layout makes the video that diffusers makes of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan_video2video import WanVideoToVideoPipeline
from PIL import Image
from safetensors.torch import load_file

import mm_config
from mm_config import replace
from mm_config.cli.app import app
from mm_config.families import wan22
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs import Conditioning, Expert, GenerationRequest, GuidanceMode, InferSpec, NoiseDraw
from mm_config.stored import read_json
from mm_data import read_mp4, write_mp4
from mm_infer import load
from tests.fidelity.releases import NAME, make_release, spec_of
from tests.fidelity.test_given_frames import CASES as GIVEN
from tests.fidelity.test_given_frames import SLOW, from_frames, shaped
from tests.fidelity.test_pipelines import NEGATIVE, OFFICIAL, PROMPTS, UNIPC, asked, set_table
from tests.fidelity.test_video_to_video import written

SEED, STRENGTH = 3, 0.7
OF_TEXT = {
    "wan2.2 t2v": shaped(OFFICIAL, 0.875),
    "ti2v of text": shaped(UNIPC, None, expand=True),
    "v2v": shaped(UNIPC, None),
}
CASES = OF_TEXT | {f"given: {name}": spec for name, spec in GIVEN.items()}


def theirs_of(name: str, spec: InferSpec, folder: Path) -> tuple[Any, dict[str, Any], list[str]]:
    """diffusers' pipeline, what it is asked for beside the words, and the same on our command line."""
    if name in OF_TEXT and name != "v2v":
        return make_release(folder, spec), {}, []
    if name == "v2v":
        release = make_release(folder, spec)
        kept = ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")
        frames = written(folder / "given.mp4", spec)[: spec.num_frames]
        video = [Image.fromarray(frame) for frame in frames]
        words = ["--video", str(folder / "given.mp4"), "--strength", str(STRENGTH)]
        pipeline: Any = WanVideoToVideoPipeline(**{part: release.components[part] for part in kept})
        return pipeline, {"video": video, "strength": STRENGTH}, words
    pipeline, said, words = from_frames(folder, spec), dict[str, Any](), list[str]()
    draws = np.random.default_rng(3)
    last = spec.model.conditioning is Conditioning.FIRST_AND_LAST_FRAME
    for option in ("image", "last_image") if last else ("image",):
        said[option] = Image.fromarray(draws.integers(0, 256, (spec.height, spec.width, 3), dtype=np.uint8))
        said[option].save(folder / f"{option}.png")
        words += [f"--{option.replace('_', '-')}", str(folder / f"{option}.png")]
    return pipeline, said, words


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if SLOW in name else name for name in CASES]
)
def test_the_command_makes_the_video_of_diffusers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec, folder = replace(CASES[name], "runtime.device", "cpu"), tmp_path / "release"
    folder.mkdir()
    theirs, said, words = theirs_of(name, spec, folder)
    theirs.set_progress_bar_config(disable=True)
    set_table(theirs.scheduler, spec.sampler)
    mm_config.dump(spec, "spec.json")
    line = ["spec.json", "--prompt", PROMPTS[0], "--negative-prompt", NEGATIVE, "--seed", str(SEED)]
    assert app(["generate", *line, *words, "--location", f"{NAME}={folder}", "--out", "ours.mp4"]) == 0
    options = {**asked(spec, NEGATIVE, "latent"), "prompt": PROMPTS[0], **said}
    if name == "v2v":
        del options["num_frames"]

    def made(output: str) -> Any:
        noise = torch.Generator("cpu").manual_seed(SEED)
        return theirs(**{**options, "generator": noise, "output_type": output}).frames

    expected = made("latent")
    (result,) = map(read_json, tmp_path.glob("runs/*/*/result.json"))
    (latents,) = load_file(result["videos"][0]["latents"]).values()
    apart = float((latents - expected[0]).abs().max() / expected.abs().max())
    assert apart <= 1e-4
    shown = (made("np")[0] * 255).astype(np.uint8)
    assert shown.std() > 3
    write_mp4(tmp_path / "theirs.mp4", shown, spec.fps)
    pixels, wanted = (read_mp4(tmp_path / f"{who}.mp4").int() for who in ("ours", "theirs"))
    # Of frames that are equal but for values at the border of two levels, the codec makes the same.
    assert (pixels - wanted).abs().float().mean() <= 0.05
    print(f"{name}: {apart:.1e} of the largest latent")


class Calls:
    """Passes through each network, those of a pair of guidance one by one."""

    def __init__(self, networks: dict[str, Any]) -> None:
        self.count: Counter[str] = Counter()
        self.order: list[str] = []
        for name, network in networks.items():
            network.register_forward_hook(lambda *_, name=name: self._called(name))

    def _called(self, name: str) -> None:
        self.count[name] += 1
        self.order.append(name)


OFFICIAL_TABLES = {
    # Of 40 steps at shift 12, 26 begin at 0.875 or above; at shift 5, 15 begin at 0.9 or above.
    "t2v": (wan22.T2V_A14B, 26, 14),
    "i2v": (wan22.I2V_A14B, 15, 25),
}


@pytest.mark.parametrize("unguided", [None, Expert.HIGH_NOISE, Expert.LOW_NOISE])
@pytest.mark.parametrize("name", OFFICIAL_TABLES)
def test_each_expert_takes_its_steps_with_its_guidance(
    name: str, unguided: Expert | None, tmp_path: Path
) -> None:
    """The steps of the official tables by hand, on our networks and on diffusers', and equal latents."""
    family, high, low = OFFICIAL_TABLES[name]
    official = family.infer()
    guidance = {"guidance_high_noise": 4.0, "guidance_low_noise": 3.0}
    if unguided is not None:
        guidance[f"guidance_{unguided.value}"] = 1.0
    sampler = attrs.evolve(official.sampler, noise=NoiseDraw.DIFFUSERS, **guidance)
    changes = {"runtime.device": "cpu", "runtime.guidance": GuidanceMode.SEQUENTIAL, "model.num_layers": 1}
    spec = replace(spec_of(sampler, official.boundary), {**changes, "negative_prompt": NEGATIVE})
    theirs = make_release(tmp_path, spec)
    set_table(theirs.scheduler, sampler)
    ours = load(spec, options=RunOptions(locations=Locations((Location(NAME, tmp_path, "test"),))))
    mine = Calls({expert.value: network for expert, network in ours.networks.items()})
    other = Calls({"high_noise": theirs.transformer, "low_noise": theirs.transformer_2})
    latents = ours.denoise([GenerationRequest(prompt=PROMPTS[0], seed=SEED)])
    passes = {
        "high_noise": high * (1 if unguided is Expert.HIGH_NOISE else 2),
        "low_noise": low * (1 if unguided is Expert.LOW_NOISE else 2),
    }
    assert mine.count == passes
    assert mine.order == ["high_noise"] * passes["high_noise"] + ["low_noise"] * passes["low_noise"]
    if unguided is None:
        options = {**asked(spec, NEGATIVE, "latent"), "prompt": PROMPTS[0]}
        expected = theirs(**{**options, "generator": torch.Generator("cpu").manual_seed(SEED)}).frames
        assert other.count == passes
        assert float((latents - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
