"""What a generation is made of: told in its folder, result, index and videos, and held against names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import attrs
import pytest
import torch

import mm_infer
from mm_config import replace, spec_hash
from mm_config.cli.app import app
from mm_config.content import made_of
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.running import runners
from mm_config.runs import attach, read_inputs
from mm_config.runs.index import open_index
from mm_config.schema import UserError
from mm_config.specs import AppliedLoraSpec, InferSpec, ReleasedWeights
from mm_data import read_comment
from mm_models.lora.adapter import HIGH_NOISE, Adapter, LowRank
from mm_models.lora.writing import save_adapters
from mm_models.seeding import generator

SMALL = {"num_frames": 5, "height": 32, "width": 32, "sampler.steps": 2, "samples.seeds": (5,)}


@pytest.fixture
def place(tmp_path: Path, release: Path, spec: InferSpec) -> tuple[InferSpec, RunOptions]:
    """A spec with an adapter, whose release and adapter are copies that a test may change."""
    shutil.copytree(release, tmp_path / "release")
    write_adapter(tmp_path / "lora", spec, seed=0)
    named = {"test/tiny": tmp_path / "release", "test/lora": tmp_path / "lora"}
    found = Locations(tuple(Location(name, path, "the test") for name, path in named.items()))
    loras = (AppliedLoraSpec(high_noise=ReleasedWeights(name="test/lora")),)
    return replace(spec, {**SMALL, "loras": loras}), RunOptions(tmp_path / "runs", locations=found)


def write_adapter(folder: Path, spec: InferSpec, seed: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    draws = generator(seed, "adapter")
    rows, columns = spec.model.parameter_shapes()["proj_out.weight"]
    layer = LowRank(torch.randn(2, columns, generator=draws), torch.randn(rows, 2, generator=draws), 1.0)
    save_adapters({HIGH_NOISE: Adapter({"proj_out": layer})}, folder)


def test_what_a_video_was_made_of_is_told_everywhere(
    place: tuple[InferSpec, RunOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    spec, options = place
    outcome = runners.run(spec, options)
    inputs = read_inputs(outcome.run_dir)
    assert inputs is not None
    assert set(inputs) == {"spec.high_noise", "spec.low_noise", "spec.loras.0.high_noise"}
    named = [one.name for _, one in sorted(inputs.items())]
    assert named == ["test/tiny/transformer", "test/lora", "test/tiny/transformer_2"]
    expected = made_of(spec_hash(spec), inputs)
    result = json.loads(outcome.result_path.read_text())
    assert result["made_of"] == attach(outcome.run_dir).record.made_of == expected
    assert json.loads(read_comment(Path(result["videos"][0]["path"])) or "")["made_of"] == expected
    (found,) = open_index(options.runs_dir).list(matching=expected[:10])
    capsys.readouterr()
    assert app(["runs", "show", found.path, "--runs-dir", str(options.runs_dir)]) == 0
    shown = capsys.readouterr().out
    assert (
        expected in shown
        and f"content.spec.loras.0.high_noise  {inputs['spec.loras.0.high_noise'].digest[:12]}" in shown
    )


def test_another_adapter_or_release_under_one_name_is_refused_with_its_file(
    place: tuple[InferSpec, RunOptions], tmp_path: Path
) -> None:
    spec, options = place
    first = attach(runners.run(spec, options).run_dir).record
    write_adapter(tmp_path / "lora", spec, seed=1)
    weights = tmp_path / "release" / "transformer_2" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError) as refused:
        runners.run(spec, options)
    adapter, release = sorted(str(problem) for problem in refused.value.problems)
    assert adapter.startswith(
        f"spec.loras.0.high_noise: test/lora (revision main) is not what it was in {first.path}"
    )
    assert release.startswith(
        f"spec.low_noise: test/tiny/transformer_2 (revision main) is not what it was in {first.path}: "
        "diffusion_pytorch_model.safetensors is sha256"
    )
    accepted = attrs.evolve(options, accept_content=True)
    second = attach(runners.run(spec, accepted).run_dir).record
    assert second.spec_hash == first.spec_hash and second.made_of != first.made_of
    assert attach(runners.run(spec, options).run_dir).record.made_of == second.made_of


def test_the_library_holds_weights_against_a_pinned_digest(place: tuple[InferSpec, RunOptions]) -> None:
    spec, options = place
    inputs = read_inputs(runners.run(spec, options).run_dir)
    assert inputs is not None
    mm_infer.load(replace(spec, "high_noise.digest", inputs["spec.high_noise"].digest), options=options)
    with pytest.raises(UserError, match=r"^spec\.low_noise\.digest: is 0{64}, but the content found is"):
        mm_infer.load(replace(spec, "low_noise.digest", "0" * 64), options=options)
