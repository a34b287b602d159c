"""Which of Wan's families a dump is about: the pipeline's class, and what its models' paths say."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from mm_config.families import wan21, wan22
from mm_config.importing.telefuser.config import Config, Findings, Value
from mm_config.specs.dtype import Dtype
from mm_config.specs.family import Family
from mm_config.specs.infer import InferSpec

OTHERS = (
    "AsyncWan22VideoPipeline",
    "HunyuanVideo15Pipeline",
    "FlashVSRStreamPipeline",
    "LTXVideoPipeline",
    "LongCatPipeline",
    "LiveActPipeline",
    "LingBotWorldFastPipeline",
    "LingBotVideoPipeline",
    "QwenImagePipeline",
)
"""Pipelines of TeleFuser that have no counterpart here."""


@attrs.frozen
class Known:
    """A family, and how TeleFuser's users name it."""

    title: str
    """What its users say."""
    pipeline: str
    """TeleFuser's class."""
    family: Family
    """What it is here."""
    experiment: str
    """Our experiment with the official values; empty for none."""
    words: dict[str, str]
    """What paths of its models may say of it, see `words_of`."""

    @property
    def official(self) -> InferSpec:
        """The spec of our experiment, without its prompts."""
        return self.family.infer(dtype=Dtype.BFLOAT16)


def _known(
    title: str, pipeline: str, family: Family, experiment: str, task: str, size: str, **more: str
) -> Known:
    version = "2.1" if pipeline == "Wan21VideoPipeline" else "2.2"
    words = {"version": version, "task": task, "size": size, "distilled": "no", **more}
    return Known(title, pipeline, family, experiment and f"experiments/{experiment}.py", words)


W21, W22, TI2V = "Wan21VideoPipeline", "Wan22VideoPipeline", "Wan22TI2VPipeline"
KNOWN = (
    _known("Wan2.1 T2V-1.3B", W21, wan21.T2V_1_3B, "wan21_t2v_1_3b_infer", "t2v", "1.3b"),
    _known("Wan2.1 T2V-14B", W21, wan21.T2V_14B, "wan21_t2v_14b_infer", "t2v", "14b"),
    _known("Wan2.1 I2V-14B-480P", W21, wan21.I2V_14B_480P, "wan21_i2v_14b_infer", "i2v", "14b", lines="480p"),
    _known("Wan2.1 I2V-14B-720P", W21, wan21.I2V_14B_720P, "", "i2v", "14b", lines="720p"),
    _known("Wan2.1 FLF2V-14B", W21, wan21.FLF2V_14B, "wan21_flf2v_14b_infer", "flf2v", "14b"),
    _known("Wan2.2 T2V-A14B", W22, wan22.T2V_A14B, "wan22_t2v", "t2v", "14b"),
    _known("Wan2.2 I2V-A14B", W22, wan22.I2V_A14B, "wan22_i2v", "i2v", "14b"),
    _known(
        "Wan2.2 T2V-A14B in four steps",
        W22,
        wan22.T2V_A14B_DISTILLED,
        "wan22_distill",
        "t2v",
        "14b",
        distilled="yes",
    ),
    _known("Wan2.2 I2V-A14B in four steps", W22, wan22.I2V_A14B_DISTILLED, "", "i2v", "14b", distilled="yes"),
    _known("Wan2.2 TI2V-5B", TI2V, wan22.TI2V_5B, "wan22_ti2v_5b_infer", "ti2v", "5b"),
)

_WORDS = {
    "version": r"wan-?(2\.?[12])(?!\d|-?vae)",
    "task": r"(?<![a-z])(t2v|i2v|flf2v|fl2v|ti2v)(?![a-z])",
    "size": r"(?<![a-z\d.])(1[.-]3|14|5)b(?![a-z\d])|(?<![a-z])a(14)b(?![a-z])",
    "lines": r"(?<!\d)(480p|720p)",
    "distilled": r"(distill|4-?steps?(?![a-z])|lightx2v)",
}


def words_of(path: str) -> dict[str, set[str]]:
    """What a path says: version (2.1), task (t2v), size (14b), lines (480p), distilled (yes)."""
    text = path.lower().replace("_", "-")
    found = {name: {_word(name, match) for match in re.finditer(at, text)} for name, at in _WORDS.items()}
    return {name: words for name, words in found.items() if words}


def family_of(
    pipeline: Value, networks: Iterable[str], others: Iterable[str], layer2: Config, found: Findings
) -> Known | None:
    """The family, or None after what is wrong was noted.

    Args:
        pipeline: The dump's `pipeline_type`.
        networks: Paths of the denoising networks.
        others: Paths of the other models, asked for what those leave open.
        layer2: The pipeline's configuration.
        found: Takes what is wrong.
    """
    said = _merged(networks)
    for name, words in _merged(others).items():
        if name not in ("version", "distilled"):
            said.setdefault(name, words)
    said.setdefault("distilled", {"no"})
    asked = {name: words for name, words in said.items() if name != "distilled"}
    candidates = [known for known in KNOWN if known.pipeline == pipeline.value]
    if len(candidates) == 1:
        asked = {name: words for name, words in asked.items() if name in ("version", "task")}
    fitting = [known for known in candidates if all(_fits(known, *item) for item in said.items())]
    if len(candidates) == 1 and all(_fits(candidates[0], *item) for item in asked.items()):
        fitting = candidates
    if pipeline.value == W21 and layer2.at("enable_clip_stage").given:
        image = layer2.at("enable_clip_stage").value
        fitting = [known for known in fitting if (known.family.image_encoder is not None) == image]
    if len(fitting) == 1:
        return fitting[0]
    what = ", ".join(f"{name} {' and '.join(sorted(words))}" for name, words in asked.items())
    titles = ", ".join(known.title for known in fitting or candidates)
    found.refuse(
        pipeline,
        f"which of Wan's families this {pipeline.value} is can't be told: the models' paths say "
        f"{what or 'nothing of it'}, which {'fits' if fitting else 'fits none of'} {titles}; a path must "
        "name the release, such as .../Wan2.1-T2V-1.3B/...",
    )
    return None


def _fits(known: Known, name: str, words: set[str]) -> bool:
    return name not in known.words or words == {known.words[name]}


def _merged(paths: Iterable[str]) -> dict[str, set[str]]:
    said: dict[str, set[str]] = {}
    for path in paths:
        for name, words in words_of(path).items():
            said.setdefault(name, set()).update(words)
    return said


def _word(name: str, match: re.Match[str]) -> str:
    word = next(filter(None, match.groups()))
    match name:
        case "version":
            return word if "." in word else f"2.{word[-1]}"
        case "size":
            return word.replace("-", ".") + "b"
        case "distilled":
            return "yes"
        case _:
            return "flf2v" if word == "fl2v" else word
