"""Which of Wan's families a dump is about: the pipeline's class, and what its models' paths say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import attrs

from mm_config.families import wan21, wan22
from mm_config.specs.dtype import Dtype
from mm_config.specs.family import Family
from mm_config.specs.infer import InferSpec

_WORDS = {
    "version": r"wan-?(2\.?[12])(?!\d|-?vae)",
    "task": r"(?<![a-z])(t2v|i2v|flf2v|fl2v|ti2v)(?![a-z])",
    "size": r"(?<![a-z\d.])(1[.-]3|14|5)b(?![a-z\d])|(?<![a-z])a(14)b(?![a-z])",
    "lines": r"(?<!\d)(480p|720p)",
    "distilled": r"(distill|4-?steps?(?![a-z])|lightx2v)",
}


def words_of(paths: Iterable[str]) -> dict[str, set[str]]:
    """What paths say: version (2.1), task (t2v), size (14b), lines (480p), distilled (yes)."""
    text = "\n".join(paths).lower().replace("___", ".").replace("_", "-")
    found = {name: {_word(name, match) for match in re.finditer(at, text)} for name, at in _WORDS.items()}
    return {name: words for name, words in found.items() if words}


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


@attrs.frozen
class Known:
    """A family, and how TeleFuser's users name it."""

    title: str
    """What its users say; paths of its models say the same, see `words_of`."""
    pipeline: str
    """TeleFuser's class."""
    family: Family
    """What it is here."""
    experiment: str = ""
    """Our experiment with the official values; empty for none."""

    @property
    def official(self) -> InferSpec:
        """The spec of our experiment, without its prompts."""
        return self.family.infer(dtype=Dtype.BFLOAT16)

    def fits(self, said: Mapping[str, set[str]]) -> bool:
        """Whether it is one of those that paths may mean."""
        own = {"distilled": {"no"}, **words_of((self.title,))}
        return all(words == own.get(name, words) for name, words in said.items())


W21, W22, TI2V = "Wan21VideoPipeline", "Wan22VideoPipeline", "Wan22TI2VPipeline"
ASYNC = "AsyncWan22VideoPipeline"
"""Wan22VideoPipeline whose stages run as actors, each as soon as it can."""
KNOWN = (
    Known("Wan2.1 T2V-1.3B", W21, wan21.T2V_1_3B, "experiments/wan21_t2v_1_3b_infer.py"),
    Known("Wan2.1 T2V-14B", W21, wan21.T2V_14B, "experiments/wan21_t2v_14b_infer.py"),
    Known("Wan2.1 I2V-14B-480P", W21, wan21.I2V_14B_480P, "experiments/wan21_i2v_14b_infer.py"),
    Known("Wan2.1 I2V-14B-720P", W21, wan21.I2V_14B_720P),
    Known("Wan2.1 FLF2V-14B", W21, wan21.FLF2V_14B, "experiments/wan21_flf2v_14b_infer.py"),
    Known("Wan2.2 T2V-A14B", W22, wan22.T2V_A14B, "experiments/wan22_t2v.py"),
    Known("Wan2.2 I2V-A14B", W22, wan22.I2V_A14B, "experiments/wan22_i2v.py"),
    Known("Wan2.2 T2V-A14B 4-step", W22, wan22.T2V_A14B_DISTILLED, "experiments/wan22_distill.py"),
    Known("Wan2.2 I2V-A14B 4-step", W22, wan22.I2V_A14B_DISTILLED),
    Known("Wan2.2 TI2V-5B", TI2V, wan22.TI2V_5B, "experiments/wan22_ti2v_5b_infer.py"),
)


def family_of(
    pipeline: str, networks: Iterable[str], others: Iterable[str], image: bool | None
) -> Known | str:
    """The family, or why it can't be told.

    Args:
        pipeline: The pipeline's class.
        networks: Paths of the denoising networks.
        others: Paths of the other models, asked for what those leave open.
        image: Whether the clip stage is on, asked where the paths leave it open; None where nothing says it.
    """
    said = words_of(networks)
    for name, words in words_of(others).items():
        if name not in ("version", "distilled"):
            said.setdefault(name, words)
    candidates = [known for known in KNOWN if known.pipeline == pipeline]
    if len(candidates) == 1:
        said = {name: words for name, words in said.items() if name in ("version", "task")}
    asked = said | ({} if len(candidates) == 1 or "distilled" in said else {"distilled": {"no"}})
    fitting = [known for known in candidates if known.fits(asked)]
    told = [known for known in fitting if (known.family.image_encoder is not None) == image]
    if len(fitting) > 1 and len(told) == 1:
        return told[0]
    if len(fitting) == 1:
        return fitting[0]
    what = ", ".join(f"{name} {' and '.join(sorted(words))}" for name, words in said.items())
    titles = ", ".join(known.title for known in fitting or candidates)
    return (
        f"which of Wan's families this {pipeline} is can't be told: the models' paths say "
        f"{what or 'nothing of it'}, which {'fits' if fitting else 'fits none of'} {titles}; a path must "
        "name the release, such as .../Wan2.1-T2V-1.3B/..."
    )
