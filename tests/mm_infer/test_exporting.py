"""A generation exported as a folder: diffusers' own pipelines open it and make our latents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline

from mm_config import dump, replace
from mm_config.cli.app import app
from mm_config.families.tiny import TINY
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs import (
    AppliedLoraSpec,
    GenerationRequest,
    InferSpec,
    LanczosUpscaleSpec,
    NoiseDraw,
    RandomWeights,
    ReleasedWeights,
    SamplerSpec,
    SigmaTable,
    Solver,
)
from mm_infer import load
from mm_infer.exporting import export_pipeline
from mm_models.lora.adapter import HIGH_NOISE, Adapter, LowRank
from mm_models.lora.writing import save_adapters
from tests.fidelity.releases import NAME, make_release, spec_of
from tests.fidelity.test_given_frames import CASES as GIVEN
from tests.fidelity.test_given_frames import from_frames, images

UNIPC = SamplerSpec(
    steps=2,
    shift=3.0,
    sigmas=SigmaTable.DIFFUSERS,
    noise=NoiseDraw.DIFFUSERS,
    guidance_high_noise=4.0,
    guidance_low_noise=3.0,
)
EULER = attrs.evolve(UNIPC, solver=Solver.EULER, sigmas=SigmaTable.DIFFUSERS_EULER, shift=5.0)
PROMPT, NEGATIVE = "a red circle moving right", "a blue circle"


def release_of(folder: Path, spec: InferSpec) -> RunOptions:
    make_release(folder / "release", spec)
    (folder / "adapter").mkdir()
    places = (Location(NAME, folder / "release", "test"), Location("adapter", folder / "adapter", "test"))
    return RunOptions(runs_dir=folder / "runs", locations=Locations(places))


def ours(spec: InferSpec, options: RunOptions) -> torch.Tensor:
    return load(spec, options=options).denoise([GenerationRequest(prompt=PROMPT, seed=3)])


def theirs(pipeline: Any, spec: InferSpec, **given: Any) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    two = {} if spec.boundary is None else {"guidance_scale_2": spec.sampler.guidance_low_noise}
    return pipeline(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        height=spec.height,
        width=spec.width,
        num_frames=spec.num_frames,
        num_inference_steps=spec.sampler.steps,
        guidance_scale=spec.sampler.guidance_high_noise,
        generator=torch.Generator("cpu").manual_seed(3),
        max_sequence_length=spec.text_encoder.max_tokens,
        output_type="latent",
        **two,
        **given,
    ).frames


@pytest.mark.parametrize(
    "spec",
    [spec_of(UNIPC, 0.9), spec_of(EULER, None), spec_of(UNIPC, None, expand=True)],
    ids=["two experts", "euler", "a timestep per token"],
)
def test_diffusers_opens_the_folder_and_makes_our_latents(spec: InferSpec, tmp_path: Path) -> None:
    options = release_of(tmp_path, spec)
    spec = replace(spec, {"negative_prompt": NEGATIVE, "runtime.device": "cpu"})
    if spec.boundary is not None:  # One expert with an adapter beside it, one that is drawn.
        save_adapters({HIGH_NOISE: adapter()}, tmp_path / "adapter" / "one")
        lora = AppliedLoraSpec(high_noise=ReleasedWeights(name="adapter", subfolder="one"), merge=False)
        spec = replace(spec, {"loras": (lora,), "low_noise": RandomWeights(seed=4)})
    told = list(export_pipeline(spec, tmp_path / "out", options))
    assert told[0] == f"written   {tmp_path / 'out'}: WanPipeline.from_pretrained({str(tmp_path / 'out')!r})"
    assert len(told) == 2
    pipeline = WanPipeline.from_pretrained(tmp_path / "out")
    assert (pipeline.transformer_2 is None) == (spec.boundary is None)
    expected = ours(spec, options)
    assert float((theirs(pipeline, spec) - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert (index["boundary_ratio"], index["expand_timesteps"]) == (
        spec.boundary,
        spec.autoencoder.spatial_stride == 16,
    )


def test_given_frames_go_through_the_pipeline_for_them(tmp_path: Path) -> None:
    """Image, video and what CLIP sees are of one size, so that neither side resizes."""
    (tmp_path / "release").mkdir()
    spec = replace(GIVEN["wan2.1, one frame"], {"sampler.steps": 2, "runtime.device": "cpu"})
    from_frames(tmp_path / "release", spec)
    options = RunOptions(locations=Locations((Location(NAME, tmp_path / "release", "test"),)))
    file, image = next(iter(images(tmp_path, spec).items()))
    told = next(export_pipeline(spec, tmp_path / "out", options))
    assert "WanImageToVideoPipeline.from_pretrained" in told
    pipeline = WanImageToVideoPipeline.from_pretrained(tmp_path / "out")
    request = GenerationRequest(prompt=PROMPT, seed=3, image=file, negative_prompt=NEGATIVE)
    expected = load(spec, options=options).denoise([request])
    found = theirs(pipeline, spec, image=image)
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_a_clean_first_frame_is_given_by_either_pipeline(tmp_path: Path) -> None:
    spec = replace(GIVEN["wan2.2, a clean frame"], {"sampler.steps": 2, "runtime.device": "cpu"})
    options = release_of(tmp_path, spec)
    list(export_pipeline(spec, tmp_path / "out", options))
    file, image = next(iter(images(tmp_path, spec).items()))
    request = GenerationRequest(prompt=PROMPT, seed=3, image=file, negative_prompt=NEGATIVE)
    expected = load(spec, options=options).denoise([request])
    found = theirs(WanImageToVideoPipeline.from_pretrained(tmp_path / "out"), spec, image=image)
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def adapter() -> Adapter:
    draws = torch.Generator().manual_seed(1)
    names = ("blocks.0.attn1.to_q", "blocks.1.attn2.to_v")
    return Adapter(
        {
            name: LowRank(torch.randn(2, 24, generator=draws), torch.randn(24, 2, generator=draws), 2.0)
            for name in names
        }
    )


def test_what_diffusers_has_no_class_for_is_named_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = TINY.infer(high_noise=RandomWeights(), low_noise=RandomWeights(seed=1))
    dump(spec, tmp_path / "tiny.json")
    assert app(["export", "diffusers", str(tmp_path / "tiny.json"), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "spec.autoencoder: is DctAutoencoderSpec, which no pipeline of diffusers has" in said
    assert "spec.text_encoder: is HashedTextEncoderSpec, which no pipeline of diffusers has" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.json"]
    for line in (["diffusers", str(tmp_path / "tiny.json")], ["nothing", str(tmp_path / "tiny.json")]):
        assert app(["export", *line]) == 2
    said = capsys.readouterr().err
    assert "diffusers is a folder: mm export diffusers" in said
    assert "expected a format (diffusers), got 'nothing'" in said


def test_nothing_is_overwritten_and_nothing_half_written_is_left(tmp_path: Path) -> None:
    spec = spec_of(UNIPC, None)
    options = release_of(tmp_path, spec)
    (tmp_path / "taken").mkdir()
    with pytest.raises(Exception, match="exists already; nothing is overwritten"):
        export_pipeline(spec, tmp_path / "taken", options)
    before = sorted(path.name for path in tmp_path.iterdir())
    missing = replace(spec, {"high_noise": ReleasedWeights(name="nowhere")})
    with pytest.raises(Exception, match=r"spec\.high_noise: no location is named 'nowhere'"):
        export_pipeline(missing, tmp_path / "out", options)
    weights = tmp_path / "release" / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(Exception, match=r"model\.safetensors"):
        export_pipeline(spec, tmp_path / "out", options)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_no_folder_of_diffusers_can_hold_is_said(tmp_path: Path) -> None:
    plain = replace(spec_of(UNIPC, None), "runtime.device", "cpu")
    options = release_of(tmp_path, plain)
    changes = {"sampler.guidance_interval": (0.2, 0.9), "sampler.guidance_rescale": 0.7}
    spec = replace(plain, {**changes, "after_decode": (LanczosUpscaleSpec(),)})
    lost = "diffusers' pipelines have no such option: it is lost"
    assert list(export_pipeline(spec, tmp_path / "out", options))[2:] == [
        f"differs   spec.sampler.guidance_interval is (0.2, 0.9); {lost}",
        f"differs   spec.sampler.guidance_rescale is 0.7; {lost}",
        "differs   spec.after_decode is set; no pipeline in a folder has such a setting: it is lost",
    ]
    assert len(list(export_pipeline(plain, tmp_path / "plain", options))) == 2
