"""Adapters at generation: each goes to its expert, merged or beside, from releases and from trainings."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from experiments import tiny, tiny_high, tiny_low
from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.running import runners
from mm_config.runs.folder import open_run
from mm_config.schema.errors import UserError
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import InferSpec
from mm_config.specs.lora import AppliedLoraSpec, LoraSpec
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import ReleasedWeights, TrainedBy
from mm_infer import load
from mm_infer.opening import open_generation
from mm_models import checkpoint
from mm_models.lora.adapter import HIGH_NOISE, LOW_NOISE, Adapter, LowRank
from mm_models.lora.writing import save_adapters
from mm_models.seeding import generator

REQUEST = GenerationRequest(prompt="a red circle moving right", seed=1)
LAYERS = ("blocks.0.attn1.to_q", "blocks.0.ffn.net.2", "condition_embedder.time_proj", "proj_out")
HIGH, LOW = Expert.HIGH_NOISE, Expert.LOW_NOISE
Weights = dict[Expert, dict[str, Tensor]]


def adapter_of(spec: InferSpec, key: str, alpha: float = 1.0) -> Adapter:
    shapes = spec.model.parameter_shapes()
    layers: dict[str, LowRank] = {}
    for name in LAYERS:
        (out, width), draws = shapes[f"{name}.weight"], generator(key, name)
        down, up = torch.randn(2, width, generator=draws), torch.randn(out, 2, generator=draws)
        layers[name] = LowRank(down, 0.2 * up, alpha)
    return Adapter(layers)


@pytest.fixture
def located(options: RunOptions, spec: InferSpec, tmp_path: Path) -> RunOptions:
    """Releases of adapters: one for both experts, and a folder with one file for each."""
    high, low = adapter_of(spec, "high"), adapter_of(spec, "low", alpha=3.0)
    save_adapters({HIGH_NOISE: high, LOW_NOISE: low}, tmp_path / "both")
    (tmp_path / "files").mkdir()
    for name, adapter in (("high", high), ("low", low)):
        tensors = {
            f"diffusion_model.{layer}.{half}.weight": value
            for layer, rank in adapter.layers.items()
            for half, value in (("lora_down", rank.down), ("lora_up", rank.up))
        }
        tensors |= {
            f"diffusion_model.{layer}.alpha": torch.tensor(rank.alpha)
            for layer, rank in adapter.layers.items()
        }
        save_file(tensors, tmp_path / "files" / f"{name}.safetensors")
    names = {"test/both": tmp_path / "both", "test/files": tmp_path / "files"}
    locations = (Location(name, path, "the test") for name, path in names.items())
    return attrs.evolve(options, locations=Locations((*options.locations.entries, *locations)))


def released(name: str, file: str = "") -> ReleasedWeights:
    return ReleasedWeights(name=f"test/{name}", subfolder=file)


def training_of(spec: InferSpec, expert: TrainSpec) -> TrainSpec:
    """An expert's training of adapters for the network of an inference spec."""
    same = {"model": spec.model, "autoencoder": spec.autoencoder, "start_from": spec.high_noise}
    return replace(expert, {**same, "lora": LoraSpec(rank=2, alpha=3.0)})


def weights_of(spec: InferSpec, options: RunOptions) -> Weights:
    networks = load(spec, options=options).networks
    return {expert: dict(network.named_parameters()) for expert, network in networks.items()}


def assert_changed(found: Weights, plain: Weights, wanted: dict[Expert, list[tuple[Adapter, float]]]) -> None:
    """Each expert's weights are the plain ones with its adapters' products added, and nothing else."""
    for expert, parameters in plain.items():
        for name, before in parameters.items():
            expected = before.double()
            for adapter, strength in wanted.get(expert, []):
                if (layer := adapter.layers.get(name.removesuffix(".weight"))) and name.endswith("weight"):
                    expected = expected + strength * layer.alpha / 2 * layer.up.double() @ layer.down.double()
            torch.testing.assert_close(found[expert][name], expected.float(), msg=f"{expert} {name}")


def make(spec: InferSpec, options: RunOptions) -> Tensor:
    return load(spec, options=options).denoise([REQUEST])


def test_one_file_for_both_experts_gives_each_its_own(spec: InferSpec, located: RunOptions) -> None:
    plain = weights_of(spec, located)
    high, low = adapter_of(spec, "high"), adapter_of(spec, "low", alpha=3.0)
    both = AppliedLoraSpec(high_noise=released("both"), low_noise=released("both"), strength=0.5)
    found = weights_of(replace(spec, "loras", (both,)), located)
    assert_changed(found, plain, {HIGH: [(high, 0.5)], LOW: [(low, 0.5)]})
    only_low = AppliedLoraSpec(low_noise=released("both"))
    assert_changed(weights_of(replace(spec, "loras", (only_low,)), located), plain, {LOW: [(low, 1.0)]})


def test_single_files_of_a_release_go_where_the_spec_says_and_add_up(
    spec: InferSpec, located: RunOptions
) -> None:
    plain = weights_of(spec, located)
    high, low = adapter_of(spec, "high"), adapter_of(spec, "low", alpha=3.0)
    loras = (
        AppliedLoraSpec(
            high_noise=released("files", "low.safetensors"), low_noise=released("files", "high.safetensors")
        ),
        AppliedLoraSpec(low_noise=released("both"), strength=-0.25),
    )
    found = weights_of(replace(spec, "loras", loras), located)
    assert_changed(found, plain, {HIGH: [(low, 1.0)], LOW: [(high, 1.0), (low, -0.25)]})


def test_beside_and_merged_make_the_same_video(spec: InferSpec, located: RunOptions) -> None:
    lora = AppliedLoraSpec(high_noise=released("both"), low_noise=released("both"))
    others = AppliedLoraSpec(low_noise=released("files", "high.safetensors"), strength=0.3)
    merged = make(replace(spec, "loras", (lora, others)), located)
    beside = replace(spec, "loras", (replace(lora, "merge", False), replace(others, "merge", False)))
    mixed = replace(spec, "loras", (replace(lora, "merge", False), others))
    assert float((make(beside, located) - merged).abs().max()) < 1e-4
    assert float((make(mixed, located) - merged).abs().max()) < 1e-4
    assert float((make(spec, located) - merged).abs().max()) > 0.1
    assert float((make(replace(spec, "loras", (lora,)), located) - merged).abs().max()) > 1e-3


def test_a_single_network_takes_its_adapter_as_high_noise(spec: InferSpec, located: RunOptions) -> None:
    single = replace(spec, {"boundary": None, "low_noise": None})
    lora = AppliedLoraSpec(high_noise=released("files", "high.safetensors"))
    found = weights_of(replace(single, "loras", (lora,)), located)
    plain = weights_of(single, located)
    assert_changed(found, plain, {Expert.SINGLE: [(adapter_of(spec, "high"), 1.0)]})
    with pytest.raises(UserError, match="an adapter of both experts; one for a single network is wanted"):
        load(replace(single, "loras", (AppliedLoraSpec(high_noise=released("both")),)), options=located)


def test_an_adapter_that_a_run_has_trained_is_found_by_its_spec(spec: InferSpec, located: RunOptions) -> None:
    training = training_of(spec, tiny_high.SPEC)
    lora = AppliedLoraSpec(high_noise=TrainedBy(spec=training))
    with pytest.raises(UserError, match=r"spec\.loras\.0\.high_noise: no finished run of "):
        open_generation(replace(spec, "loras", (lora,)), located)
    adapter = adapter_of(spec, "trained", alpha=3.0)
    run = open_run(training, located)
    folder = run.path / "checkpoints" / "step-00000001"
    folder.parent.mkdir(exist_ok=True)
    tensors = {f"{name}.lora_A.weight": layer.down for name, layer in adapter.layers.items()}
    tensors |= {f"{name}.lora_B.weight": layer.up for name, layer in adapter.layers.items()}
    checkpoint.save(folder, {"model": tensors}, {"step": 1})
    run.finish({"kind": "train", "checkpoint": "checkpoints/step-00000001"})
    found = weights_of(replace(spec, "loras", (lora,)), located)
    assert_changed(found, weights_of(spec, located), {HIGH: [(adapter, 1.0)]})


def test_all_adapters_that_cannot_be_used_are_named_by_their_fields(
    spec: InferSpec, located: RunOptions, tmp_path: Path
) -> None:
    nowhere = AppliedLoraSpec(high_noise=released("nowhere"), low_noise=released("files", "mid.safetensors"))
    with pytest.raises(UserError) as caught:
        open_generation(replace(spec, "loras", (nowhere,)), located)
    assert [problem.path for problem in caught.value.problems] == [
        "spec.loras.0.high_noise",
        "spec.loras.0.low_noise",
    ]
    assert "no location is named 'test/nowhere'" in caught.value.problems[0].message
    assert caught.value.problems[1].message.endswith("files/mid.safetensors")


def test_wrong_adapters_are_named_by_their_fields_before_a_run_folder_is_made(
    spec: InferSpec, located: RunOptions, tmp_path: Path
) -> None:
    save_adapters({LOW_NOISE: adapter_of(spec, "low")}, tmp_path / "files" / "low")
    layers = {f"double_{name}": layer for name, layer in adapter_of(spec, "high").layers.items()}
    save_adapters({HIGH_NOISE: Adapter(layers)}, tmp_path / "files" / "other")
    loras = (
        AppliedLoraSpec(high_noise=released("files", "low")),
        AppliedLoraSpec(low_noise=released("files", "other"), merge=False),
        AppliedLoraSpec(high_noise=released("files", "half.safetensors")),
        AppliedLoraSpec(high_noise=released("files", "nowhere.safetensors")),
    )
    half = {"transformer.proj_out.lora_A.weight": torch.ones(2, 32)}
    save_file(half, tmp_path / "files" / "half.safetensors")
    with pytest.raises(UserError) as caught:
        runners.run(replace(spec, "loras", loras), located)
    assert not list(located.runs_dir.rglob("spec.json"))
    first, second, third, fourth = caught.value.problems
    assert first.path == "spec.loras.0.high_noise"
    assert first.message.endswith("(transformer_2) alone; one for the high-noise expert is wanted")
    assert second.path == "spec.loras.1.low_noise"
    assert "other: the adapter matches nothing in the network: it changes double_blocks.0" in second.message
    assert third.path == "spec.loras.2.high_noise"
    assert "half.safetensors: proj_out lacks lora_B (lora_up); there is transformer.proj_out" in third.message
    assert fourth.path == "spec.loras.3.high_noise"


def test_an_adapter_of_another_network_is_refused_before_a_training_starts(located: RunOptions) -> None:
    lora = AppliedLoraSpec(high_noise=released("both"), low_noise=released("both"))
    building = replace(tiny.SPEC, {"loras": (lora,), "runtime.build_missing": True})
    with pytest.raises(UserError) as caught:
        runners.run(building, located)
    assert [problem.path for problem in caught.value.problems] == [
        "spec.loras.0.high_noise",
        "spec.loras.0.low_noise",
    ]
    for problem in caught.value.problems:
        assert "of another shape, so it was made for another network: blocks.0.attn1" in problem.message
    assert not list(located.runs_dir.rglob("spec.json"))


def test_after_a_training_of_an_adapter_that_failed_no_other_is_started(
    spec: InferSpec, located: RunOptions, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    nowhere = attrs.evolve(located, runs_dir=tmp_path / "file" / "runs")
    high, low = (TrainedBy(spec=training_of(spec, one)) for one in (tiny_high.SPEC, tiny_low.SPEC))
    loras = (AppliedLoraSpec(high_noise=high, low_noise=low),)
    with pytest.raises(UserError) as caught:
        load(replace(spec, {"loras": loras, "runtime.build_missing": True}), options=nowhere)
    assert len(caught.value.problems) == 1


def test_convolutions_and_differences_are_beside_the_weights_what_they_are_merged(
    spec: InferSpec, located: RunOptions, tmp_path: Path
) -> None:
    shapes = spec.model.parameter_shapes()
    out, *kernel = shapes["patch_embedding.weight"]
    convolution = LowRank(torch.ones(2, *kernel), torch.ones(out, 2, 1, 1, 1), 1.0)
    save_adapters({HIGH_NOISE: Adapter({"patch_embedding": convolution})}, tmp_path / "files" / "kernel")
    difference = {"diffusion_model.head.head.diff_b": torch.ones(shapes["proj_out.bias"])}
    difference |= {
        f"diffusion_model.head.head.lora_{half}.weight": torch.ones(shape)
        for half, shape in (("down", (1, 32)), ("up", (shapes["proj_out.weight"][0], 1)))
    }
    save_file(difference, tmp_path / "files" / "difference.safetensors")
    lora = AppliedLoraSpec(
        high_noise=released("files", "kernel"), low_noise=released("files", "difference.safetensors")
    )
    plain, merged = weights_of(spec, located), weights_of(replace(spec, "loras", (lora,)), located)
    for expert, name in ((HIGH, "patch_embedding.weight"), (LOW, "proj_out.bias")):
        assert not torch.equal(plain[expert][name], merged[expert][name])
    expected = make(replace(spec, "loras", (lora,)), located)
    beside = make(replace(spec, "loras", (replace(lora, "merge", False),)), located)
    assert float((beside - expected).abs().max()) < 1e-4


def test_the_half_of_a_file_that_nothing_takes_is_told_once(
    spec: InferSpec, located: RunOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*loras: AppliedLoraSpec) -> str:
        load(replace(spec, "loras", loras), options=located)
        return capsys.readouterr().out

    high, low = AppliedLoraSpec(high_noise=released("both")), AppliedLoraSpec(low_noise=released("both"))
    file = f"{tmp_path / 'both'} holds an adapter of the"
    assert told(low, low) == (
        f"spec.loras.0.low_noise: {file} high-noise expert too, which no field takes; to add it, "
        "name it in spec.loras.0.high_noise or in that of a further entry\n"
    )
    others = AppliedLoraSpec(high_noise=released("files", "high.safetensors"))
    assert told(others, high) == (
        f"spec.loras.1.high_noise: {file} low-noise expert too, which no field takes; to add it, "
        "name it in spec.loras.1.low_noise or in that of a further entry\n"
    )
    assert told(high, others, replace(low, "strength", 0.5)) == ""


def test_adapters_that_were_written_for_peft_are_in_folders_of_their_experts(
    spec: InferSpec, located: RunOptions, tmp_path: Path
) -> None:
    experts = {HIGH_NOISE: adapter_of(spec, "high"), LOW_NOISE: adapter_of(spec, "low", alpha=3.0)}
    save_adapters(experts, tmp_path / "files" / "peft", "peft")
    whole = AppliedLoraSpec(high_noise=released("files", "peft"))
    with pytest.raises(UserError) as caught:
        load(replace(spec, "loras", (whole,)), options=located)
    (problem,) = caught.value.problems
    assert problem.path == "spec.loras.0.high_noise"
    assert problem.message.endswith(
        "peft: holds no safetensors file, its folders do: name one of transformer, transformer_2, "
        'in a spec such as subfolder="transformer"'
    )
    parts = AppliedLoraSpec(
        high_noise=released("files", "peft/transformer"), low_noise=released("files", "peft/transformer_2")
    )
    found = weights_of(replace(spec, "loras", (parts,)), located)
    wanted = {HIGH: [(experts[HIGH_NOISE], 1.0)], LOW: [(experts[LOW_NOISE], 1.0)]}
    assert_changed(found, weights_of(spec, located), wanted)
