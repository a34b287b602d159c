"""The page of `mm show`, and the sentences that describe a spec."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import tiny, tiny_high, tiny_low
from mm_config import exact_hash, replace, spec_hash
from mm_config.cli.page import unstyled
from mm_config.cli.plan_page import plan_lines
from mm_config.cli.summary import summary_lines
from mm_config.cli.values import brief, fitted, for_shell, outline
from mm_config.families import wan21
from mm_config.schema.decorator import spec
from mm_config.schema.fields import field
from mm_config.schema.root import RootSpec
from mm_config.specs.data import BucketSpec
from mm_config.specs.datasets import ManifestSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.lora import LoraSpec
from mm_config.specs.optim import EmaSpec, MuonSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights
from mm_config.stored.describe import describe, magnitude
from mm_config.stored.text_width import cut, width_of
from tests.mm_config.test_plan import OwnModel, training

ROOT = Path(__file__).parents[2]


def page(value: RootSpec, width: int = 80) -> list[str]:
    return [unstyled(line) for line in summary_lines(value, width)]


def group(lines: list[str], title: str) -> list[str]:
    """The lines of a group, with single spaces and without what is said of the runner."""
    start = lines.index(title) + 1
    found = (
        line.removesuffix("(not carried out yet)") for line in lines[start : [*lines, ""].index("", start)]
    )
    return [" ".join(line.split()) for line in found]


def test_the_head_names_the_spec_and_says_what_it_does() -> None:
    value = replace(tiny_high.SPEC, "name", "mine")
    head, blank, first, *_ = page(value)
    assert head == f"mine  train  spec {spec_hash(value)[:12]}  exact {exact_hash(value)[:12]}"
    assert blank == ""
    assert first.startswith("Trains the high-noise expert (sigma 0.875 to 1) of a WanTransformer")
    assert page(tiny.SPEC)[0].startswith("(unnamed)  infer  ")


def test_groups_hold_what_is_not_at_its_default() -> None:
    lines = page(tiny_high.SPEC)
    assert "Model" in lines
    assert "model.patch_size 1 4 4 latent cells" in group(lines, "Model")
    assert group(lines, "Noise and loss") == [
        "expert high_noise",
        "diffusion.shift 12.0",
        "diffusion.boundary 0.875 sigma",
    ]
    assert group(lines, "Weights") == ["start_from random-weights"]
    assert group(lines, "Execution") == ["data.cache latents"]
    assert not [line for line in lines if "weight_decay" in line]
    assert re.fullmatch(r"\d+ more fields at their defaults; --format flat shows all", lines[-1])


def test_every_field_is_shown_or_counted() -> None:
    changed = replace(tiny_high.SPEC, {"optim.weight_decay": 0.1, "fsdp.offload": True})
    before, after = (int(page(value)[-1].split()[0]) for value in (tiny_high.SPEC, changed))
    assert before - after == 2
    assert "fsdp.offload True" in group(page(changed), "Execution")


def test_trainings_that_weights_come_from_stand_by_their_hash() -> None:
    lines = group(page(tiny.SPEC), "Weights")
    assert f"high_noise.spec train spec {spec_hash(tiny_high.SPEC)[:12]}" in lines
    named = replace(tiny.SPEC, "low_noise.spec.name", "mine")
    assert f"low_noise.spec mine, train spec {spec_hash(tiny_low.SPEC)[:12]}" in group(page(named), "Weights")


def test_optional_parts_and_lists_of_parts_are_shown() -> None:
    bucket = BucketSpec(num_frames=17, height=64, width=96)
    value = replace(tiny_high.SPEC, {"ema": EmaSpec(), "lora": LoraSpec(rank=4), "data.buckets": (bucket,)})
    lines = page(value)
    assert "ema at its defaults" in group(lines, "Optimisation")
    assert "lora.rank 4" in group(lines, "Optimisation")
    assert "data.buckets.0.width 96 pixels" in group(lines, "Data")


def test_paths_stand_apart() -> None:
    value = replace(tiny_high.SPEC, "data.dataset", ManifestSpec(name="clips", path="/data/clips.jsonl"))
    assert group(page(value), "Names and paths") == ["data.dataset.path /data/clips.jsonl"]
    assert group(page(value), "Data")[:2] == ["data.dataset manifest-dataset", "data.dataset.name clips"]


@spec("summary-test-root")
class OtherRoot(RootSpec):
    """Does something of its own.

    At length.
    """

    name: str = field(default="")
    """Label."""
    size: int = field(default=3, unit="pixels")
    """A size."""


def test_kinds_of_other_packages_have_a_page() -> None:
    lines = page(OtherRoot(name="x", size=4))
    assert lines[2:] == ["Does something of its own.", "", "Others", "  size  4 pixels"]
    assert page(OtherRoot(name="x"))[-1] == "1 more field at its default; --format flat shows all"


@pytest.mark.parametrize("width", [72, 80, 120])
def test_a_page_fits_its_width(width: int) -> None:
    wide = {"negative_prompt": "色调艳丽，过曝，" * 40, "samples.prompts": ("word " * 80, "x")}
    for value in (tiny_high.SPEC, tiny_low.SPEC, tiny.SPEC, replace(tiny.SPEC, wide)):
        assert max(map(width_of, page(value, width))) <= width


def on_terminal(*argv: str) -> str:
    """What `mm` writes to a pseudo-terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "mm_config", *argv]
    process = subprocess.Popen(command, stdout=theirs, env=environment, cwd=ROOT)
    os.close(theirs)
    written = b""
    while chunk := _read(ours):
        written += chunk
    os.close(ours)
    assert process.wait() == 0
    return written.decode().replace("\r\n", "\n")


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 65536)
    except OSError:  # Linux reports the other end's closing this way.
        return b""


def test_a_terminal_gets_the_same_page_with_colours() -> None:
    coloured = on_terminal("show", "experiments.tiny")
    assert "\x1b[1mModel\x1b[0m" in coloured
    plain = "\n".join(line.rstrip() for line in page(replace(tiny.SPEC, "name", "tiny"))) + "\n"
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_a_pipe_gets_its_page_without_the_library_of_colours() -> None:
    code = (
        "import sys\nfrom mm_config.cli.app import app\n"
        "app(['show', 'experiments.tiny'])\napp(['diff', 'experiments.tiny', 'experiments.tiny_high'])\n"
        "app(['show', 'experiments.tiny', '--format', 'python'])\n"
        "sys.exit(bool({'rich', 'tyro', 'sqlalchemy', 'yaml', 'numpy', 'torch'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_a_training_in_words() -> None:
    assert describe(tiny_low.SPEC) == (
        "Trains the low-noise expert (sigma 0 to 0.875) of a WanTransformer with 3.06 M parameters on 17 "
        "frames of 64x64 at 8 fps. 1,400 steps of 32 clips with AdamW at a peak learning rate of 0.003, "
        f"starting from the outcome of another training (spec {spec_hash(tiny_high.SPEC)[:12]})."
    )
    changed = replace(
        tiny_high.SPEC,
        {
            "expert": Expert.SINGLE,
            "diffusion.boundary": None,
            "lora": LoraSpec(rank=4),
            "optim": MuonSpec(lr=1e-5),
            "schedule.steps": 1,
            "data.buckets": (BucketSpec(num_frames=17, height=64, width=96),) * 2,
            "start_from": ReleasedWeights(name="Wan-AI/Wan2.2", subfolder="transformer_2"),
        },
    )
    assert describe(changed) == (
        "Trains rank-4 adapters of a WanTransformer with 3.06 M parameters on clips of 2 sizes at 8 fps. "
        "1 step of 32 clips with Muon at a peak learning rate of 1e-05, starting from Wan-AI/Wan2.2 (main, "
        "transformer_2)."
    )


def test_a_generation_in_words() -> None:
    assert describe(tiny.SPEC) == (
        "Generates 64 videos (32 prompts, 2 seeds) of 17 frames of 64x64 at 8 fps with the high-noise and "
        "the low-noise expert of a WanTransformer with 3.06 M parameters each; they change at sigma 0.875. "
        "20 steps of unipc, shift 12, guidance 3 at high and 2 at low noise."
    )
    changed = replace(
        tiny.SPEC,
        {
            "high_noise": RandomWeights(),
            "low_noise": None,
            "boundary": None,
            "samples.prompts": (),
            "sampler.guidance_high_noise": 1.0,
        },
    )
    assert describe(changed) == (
        "Generates videos of 17 frames of 64x64 at 8 fps with a WanTransformer with 3.06 M parameters. "
        "20 steps of unipc, shift 12, no guidance."
    )


@pytest.mark.parametrize(
    ("count", "words"),
    [(640, "640"), (3_062_000, "3.06 M"), (14_288_491_584, "14.3 B"), (999_999, "1 M"), (10**12, "1 T")],
)
def test_large_counts_in_three_digits(count: int, words: str) -> None:
    assert magnitude(count) == words


def test_values_are_written_as_the_command_line_reads_them() -> None:
    assert for_shell(("a b", "it's", 1.5, None, Expert.SINGLE)) == "'a b' 'it'\"'\"'s' 1.5 None single"
    assert for_shell("") == "''"
    assert for_shell(()) == "(none)"
    for nasty in ("line\nbreak", "tab\t'quote'\\", "色\u3000é\x00"[:-1], "\u202eback"):
        escaped = for_shell(nasty)
        assert escaped.isprintable()
        read = subprocess.run(["bash", "-c", f"printf %s {escaped}"], capture_output=True, check=True)
        assert read.stdout.decode() == nasty
    assert brief(tuple(range(9))) == "0 1 ... (9 in all)"


def test_long_values_are_shortened_to_their_room() -> None:
    assert fitted("short", 20) == "short"
    assert fitted("word " * 20, 40) == "'word word word wor...' (100 characters)"
    assert fitted(tuple(range(100)), 24) == "0 1 2 3 ... (100 in all)"
    assert fitted(("word " * 20,), 40) == fitted("word " * 20, 40)
    assert outline(MuonSpec(lr=1.0)) == "muon (lr 1.0)"
    assert outline(MuonSpec()) == "muon"


def test_columns_are_counted_as_a_terminal_shows_them() -> None:
    assert width_of("abc") == 3
    assert width_of("色调") == 4
    assert width_of("e\u0301") == 1
    assert cut("色调艳丽", 5) == "色调"
    assert cut("abc", 5) == "abc"


def test_a_network_of_ones_own_in_words_and_in_figures() -> None:
    root = replace(training(wan21.T2V_14B), "model", OwnModel())
    assert describe(root).startswith("Trains an OwnModel with 128 parameters on ")
    lines = plan_lines(root, 1)
    assert "  forward      256 FLOP per sample" in lines
    assert "  network                             256 FLOP  100.0 %" in lines
