"""What an inference file says beside its networks: sizes, guidance, boundary, prompts, residency."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from mm_config.importing.mindspeed.files import Files, Known, is_count
from mm_config.importing.mindspeed.keys import FLAG, INFERENCE
from mm_config.importing.mindspeed.places import in_words, is_placeholder
from mm_config.importing.mindspeed.words import OFFLOAD
from mm_config.importing.readings import Reading, given, refused, said, silent, tried
from mm_config.importing.values import numbers, real
from mm_config.importing.verdict import Verdict
from mm_config.schema.types import is_tuple
from mm_config.specs.diffusion import SigmaTable
from mm_config.specs.serving import GuidanceMode
from mm_config.specs.weights import RandomWeights, ReleasedWeights

LOW_NOISE = "low-noise-weights"
"""Logical name of the second expert's weights that no published family has."""
NEGATIVE_PROMPT = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, "
    "static, "
    "overall gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, "
    "poorly drawn hands, poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still "
    "picture, messy background, three legs, many people in the background, walking backwards"
)
"""What WanPipeline takes for networks of Wan2.1: the English one of diffusers' Wan pages."""
_CHINESE = ("wan2.2-t2v", "wan2.2-i2v")
_MOST_PROMPTS = 100


def size(files: Files, known: Known) -> Iterator[Reading]:
    """`num_frames`, `height` and `width`."""
    fact = files.fact(INFERENCE, "pipeline_config.input_size")
    if fact is not None:
        found, wrong = tried(fact, numbers(3))
        yield from wrong
        for name, value in zip(("num_frames", "height", "width"), found or (), strict=False):
            yield given(fact, name, value)
    taken = files.fact(INFERENCE, "num_frames")
    if taken is not None and files.holds("video"):
        found, wrong = tried(taken, real)
        yield from wrong or (given(taken, "num_frames", int(found)),)


def guidance(files: Files, known: Known) -> Iterator[Reading]:
    """`sampler.guidance_*`, and that the two passes run in turn."""
    text = "runtime.guidance = sequential: WanPipeline runs the pass without the prompt after the one with it"
    yield given("guidance", "runtime.guidance", GuidanceMode.SEQUENTIAL, text)
    fact = files.fact(INFERENCE, "diffusion.guidance_scale")
    if fact is None:
        return
    values, wrong = tried(fact, lambda value: list(map(real, value if is_tuple(value) else (value,))))
    yield from wrong
    if wrong:
        return
    if not 1 <= len(values) <= 2:
        yield refused(fact, "expected a number, or two: high noise, low noise")
        return
    order = "; Wan's own configuration writes (low, high)" if len(values) == 2 else ""
    yield given(fact, "sampler.guidance_high_noise", values[0])
    low = f"sampler.guidance_low_noise = {values[-1]}{order}"
    yield given(fact, "sampler.guidance_low_noise", values[-1], low)


def noise_table(files: Files, known: Known) -> Iterator[Reading]:
    """`sampler.sigmas`: UniPC's table is that of the diffusers which 26.1 and master ask for."""
    if files.raw(INFERENCE, "diffusion.model_id") != "UniPCMultistepScheduler":
        return
    fact = files.fact(INFERENCE, "diffusion.use_flow_sigmas")
    if fact is not None and fact.value is not True:
        yield refused(fact, "the table of noise levels is that of flow matching; only true can be imported")
        return
    text = (
        "sampler.sigmas = diffusers, the table of diffusers 0.38, which 26.1 and master ask for; that of "
        "26.0's "
        "older diffusers is wan_official"
    )
    yield given(fact or "diffusion.use_flow_sigmas", "sampler.sigmas", SigmaTable.DIFFUSERS, text)


def negative_prompt(files: Files, known: Known) -> Iterator[Reading]:
    """`negative_prompt`: Wan's Chinese one for Wan2.2 alone."""
    word = files.raw(INFERENCE, "predictor.model_type", "t2v")
    expands = files.raw(INFERENCE, "pipeline_config.expand_timesteps") is True
    if word in _CHINESE or expands or not files.has(INFERENCE, "predictor."):
        return
    text = NEGATIVE_PROMPT
    if word == "flf2v":
        text = f"Lens switching, lens shaking, {text[0].lower()}{text[1:]}"
    told = "is MindSpeed-MM's English one: inference_sora.py gives none, and only Wan2.2 has the Chinese one"
    yield given("negative_prompt", "negative_prompt", text, told)


def offload(files: Files, known: Known) -> Iterator[Reading]:
    """`runtime.residency`."""
    fact = files.fact(INFERENCE, "pipeline_config.cpu_offload")
    if fact is None:
        return
    value, wrong = tried(fact, OFFLOAD)
    yield from wrong or (
        given(fact, "runtime.residency.experts", value),
        given(fact, "runtime.residency.encoders", value),
    )


def prompts(files: Files, known: Known) -> Iterator[Reading]:
    """`samples.prompts`."""
    fact = files.fact(INFERENCE, "prompt")
    if fact is None:
        text = "no file has one: write samples.prompts into the experiment, or give one to `mm generate`"
        yield said(Verdict.OPEN, "prompt", text)
    elif not isinstance(fact.value, str) or not fact.value.strip():
        yield refused(fact, "expected a prompt, or the name of a file with one prompt per line")
    elif not fact.value.endswith(".txt"):
        yield given(fact, "samples.prompts", (fact.value,))
    elif found := files.prompts.get(PurePosixPath(fact.value).name):
        cut = f"; MindSpeed-MM cuts the {len(found)} to {_MOST_PROMPTS}" if len(found) > _MOST_PROMPTS else ""
        text = f"samples.prompts: {min(len(found), _MOST_PROMPTS)} of {PurePosixPath(fact.value).name}{cut}"
        yield given(fact, "samples.prompts", found[:_MOST_PROMPTS], text)
    else:
        text = (
            "give this file to the import too, of which MindSpeed-MM reads 100 lines; or put its prompts "
            "into "
            "samples.prompts, or give one to `mm generate`"
        )
        yield said(Verdict.OPEN, fact, text)


def seeds(files: Files, known: Known) -> Iterator[Reading]:
    """`samples.seeds`: the pipeline's own seed beats the script's."""
    for kind, path in ((INFERENCE, "pipeline_config.seed"), (FLAG, "--seed")):
        fact = files.fact(kind, path)
        if fact is not None and is_count(seed := files.get(kind, path), 0):
            yield given(fact, "samples.seeds.0", seed)


def low_noise(files: Files, known: Known) -> Iterator[Reading]:
    """`low_noise`: the second expert."""
    fact: Any = files.fact(INFERENCE, "low_noise_predictor")
    if not files.holds("experts") and files.has(INFERENCE, "predictor."):
        return
    if known.family.low_noise is not None:
        if fact is not None:
            yield said(
                Verdict.MAPPED, fact, f"low_noise: {in_words(known.family.low_noise)}, before mm-convert"
            )
    elif fact is not None and fact.value:
        yield silent(fact, "low_noise", ReleasedWeights(name=LOW_NOISE))
        if is_placeholder(fact.value):
            yield said(Verdict.OPEN, fact, f"is no path: name the folder by --location {LOW_NOISE}=FOLDER")
        else:
            text = f"--location {LOW_NOISE}={fact.value}"
            yield Reading(fact, Verdict.MAPPED, text, f"--location {LOW_NOISE}", fact.value)
    else:
        yield silent("low_noise_predictor", "low_noise", RandomWeights())


def video(files: Files, known: Known) -> Iterator[Reading]:
    """Video to video, which is one request's."""
    fact = files.fact(INFERENCE, "video")
    if fact is None:
        return
    yield said(Verdict.OUTSIDE, fact, "a request's: `mm generate` takes it by --video, see the command")
    strength = files.fact(INFERENCE, "strength")
    if strength is not None:
        value, wrong = tried(strength, real)
        if wrong or not 0 < value <= 1:
            yield refused(strength, "expected a number above 0, at most 1")
        else:
            yield said(Verdict.OUTSIDE, strength, "a request's: --strength, see the command")
    first = files.fact(INFERENCE, "start_frame")
    if first is not None and first.value != 0:
        yield refused(first, "a given video is read from its first frame on; only 0 can be imported")


def asked(files: Files) -> tuple[str, ...]:
    """The words of `mm generate` for what is a request's; empty where the experiment holds all."""
    video, strength, image = (files.raw(INFERENCE, key) for key in ("video", "strength", "image"))
    text = files.raw(INFERENCE, "prompt")
    named = isinstance(text, str) and text.endswith(".txt")
    lines = files.prompts.get(PurePosixPath(text).name, ()) if named else (text,) if text else ()
    words = [word for line in lines[:_MOST_PROMPTS] for word in ("--prompt", line)]
    given_files = [
        word
        for flag, value in (("--video", video), ("--image", image))
        if isinstance(value, str) and not is_placeholder(value) and not value.endswith(".txt")
        for word in (flag, value)
    ]
    if "--video" in given_files:
        given_files += ["--strength", str(0.7 if strength is None else strength)]
    if lines and not given_files:
        return ()
    return (*(words or ("--prompt", "A red fox runs through deep snow.")), *given_files)
