"""TeleFuser's dumps become inference specs, and the report says what became of every value."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from mm_config.families import wan21
from mm_config.importing.telefuser.families import KNOWN
from mm_config.importing.telefuser.importer import import_dump
from mm_config.importing.verdict import Verdict
from mm_config.rules import problems
from mm_config.schema.errors import UserError
from mm_config.schema.evolve import get
from mm_config.specs.diffusion import SigmaTable, Solver
from mm_config.specs.dtype import Dtype
from mm_config.specs.parallel import AttentionImpl, CompileMode
from mm_config.specs.requests import SamplesSpec
from mm_config.specs.serving import ApproximateAttention, GuidanceMode, QuantFormat, Residency, SparsePattern
from mm_config.specs.weights import ReleasedWeights
from tests.mm_config.importing.telefuser_files import (
    ABSENT,
    DATA,
    DIT,
    SEED,
    VAE,
    WAN22,
    edited,
    line_of,
    made,
    refusal,
)

ORIGINAL = "Wan-AI/Wan2.1-T2V-1.3B"


def test_the_official_spec_is_that_of_our_experiment() -> None:
    for known in KNOWN:
        if known.experiment:
            name = known.experiment.removesuffix(".py").replace("/", ".")
            spec = importlib.import_module(name).SPEC
            assert attrs.evolve(spec, samples=SamplesSpec(), name="") == known.official


def test_the_seed_s_dump() -> None:
    spec, report = import_dump(SEED)
    family = wan21.T2V_1_3B
    network = ReleasedWeights(name=ORIGINAL, subfolder="diffusion_pytorch_model.safetensors")
    assert (spec.model, spec.boundary, spec.high_noise) == (family.model, None, network)
    encoder = ReleasedWeights(name=ORIGINAL, subfolder="models_t5_umt5-xxl-enc-bf16.pth")
    assert get(spec, "text_encoder.weights") == encoder
    assert (spec.dtype, get(spec, "autoencoder.dtype")) == (Dtype.BFLOAT16, Dtype.BFLOAT16)
    assert (spec.sampler.solver, spec.sampler.sigmas) == (Solver.EULER, SigmaTable.FULL_RANGE)
    assert (spec.sampler.steps, spec.sampler.shift) == (50, 8.0)
    assert (spec.runtime.compile.enabled, spec.runtime.compile.fullgraph) == (True, False)
    assert spec.runtime.attention is AttentionImpl.FLASH_3
    assert spec.runtime.guidance is GuidanceMode.PARALLEL
    assert problems(spec) == []
    found = {entry.key: (line_of(entry), entry.verdict) for entry in report.entries if entry.place}
    texts = {entry.key: entry.text for entry in report.entries}
    assert texts[f"{DIT}.parallel_config.cfg_degree"] == "spec.runtime.guidance = parallel"
    assert found["layer2_inference_config.sample_solver"] == (22, Verdict.MAPPED)
    assert found["layer1_model_definition.models[0].class"] == (12, Verdict.CONFLICT)
    assert found[f"{DIT}.compile"] == (42, Verdict.MAPPED)
    assert found["timestamp"] == (3, Verdict.OUTSIDE)
    assert report.command("x.py") == (
        "torchrun --nproc-per-node=2 x.py --location Wan-AI/Wan2.1-T2V-1.3B=/dev/shm/Wan2.1-T2V-1.3B "
        "--spec.prompts sunrise"
    )
    assert "spec.sampler.shift = 8.0 (sigma_shift; 5.0 runs where a script gives none)" in report.more[ABSENT]
    (compared,) = report.comparisons
    assert {"spec.autoencoder.dtype", "spec.sampler.solver"} < {change.path for change in compared.changes}


def test_the_seed_s_dump_as_it_is_printed_is_cut_short() -> None:
    with pytest.raises(UserError, match=r"printed.json:33: layer2_inference_config.dit_config: .*cut short"):
        import_dump(DATA / "telefuser_seed_as_printed.json")


def test_a_dump_of_two_experts() -> None:
    spec, report = import_dump(WAN22)
    low = ReleasedWeights(name="Wan-AI/Wan2.2-T2V-A14B", subfolder="low_noise_model")
    assert (spec.boundary, spec.low_noise) == (0.875, low)
    assert (spec.sampler.guidance_high_noise, spec.sampler.guidance_low_noise) == (4.0, 3.0)
    assert spec.runtime.residency.experts is Residency.SWAP
    assert spec.runtime.parallel.ulysses == 2
    assert report.family == "Wan2.2 T2V-A14B (Wan22VideoPipeline)"
    assert [compared.name for compared in report.comparisons] == ["experiments/wan22_t2v.py"]
    assert any("never passes it and runs with 0.875" in warning for warning in report.more["mind"])
    assert "spec.boundary = 0.875 (boundary; 0.875 runs where a script gives none)" in report.more[ABSENT]


def test_every_value_of_a_dump_is_in_the_report_at_its_line() -> None:
    for file in (SEED, WAN22):
        _, report = import_dump(file)
        lines = file.read_text("utf-8").splitlines()
        keys = [entry.key for entry in report.entries]
        assert len(keys) == len(set(keys)) > 20
        for entry in (entry for entry in report.entries if entry.place):
            assert f'"{entry.key.rpartition(".")[2]}"' in lines[line_of(entry) - 1], entry
            assert entry.text or entry.verdict is Verdict.MAPPED
        printed = "\n".join(report.lines("x.py"))
        for verdict in {entry.verdict for entry in report.entries}:
            count = sum(entry.verdict is verdict for entry in report.entries)
            assert f"\n{verdict.value} ({count})\n" in printed
        assert len(json.dumps(report.to_json("x.py"))) > 1000


@pytest.mark.parametrize(
    ("pipeline", "path", "title"),
    [
        ("Wan21VideoPipeline", "/m/Wan2.1-T2V-14B/diffusion_pytorch_model.safetensors", "Wan2.1 T2V-14B"),
        ("Wan21VideoPipeline", "/m/wan2.1_t2v_1_3b/dit.safetensors", "Wan2.1 T2V-1.3B"),
        ("Wan21VideoPipeline", "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers/transformer", "Wan2.1 I2V-14B-720P"),
        ("Wan21VideoPipeline", "/m/Wan2.1-FLF2V-14B-720P", "Wan2.1 FLF2V-14B"),
        ("Wan22VideoPipeline", "/m/Wan2.2-I2V-A14B/high_noise_model", "Wan2.2 I2V-A14B"),
        (
            "Wan22VideoPipeline",
            "/m/Wan2.2-I2V-A14B/dit_high_noise_distill_model_bf16_1022_ecab7.safetensors",
            "Wan2.2 I2V-A14B 4-step",
        ),
        ("Wan22TI2VPipeline", "/m/some/where.safetensors", "Wan2.2 TI2V-5B"),
    ],
)
def test_the_family_is_found(pipeline: str, path: str, title: str, tmp_path: Path) -> None:
    dump = {
        "pipeline_type": pipeline,
        "layer1_model_definition": {"models": [{"name": "wan_video_dit", "path": path, "class": "WanModel"}]},
        "layer2_inference_config": {},
    }
    file = tmp_path / "dump.json"
    file.write_text(json.dumps(dump))
    assert import_dump(file)[1].family == f"{title} ({pipeline})"


def test_keys_of_newer_versions_are_reported(tmp_path: Path) -> None:
    file = edited(tmp_path, SEED, (f"{DIT}.new_config", {"level": 3, "names": ["a"]}))
    spec, report = import_dump(file)
    assert spec == import_dump(SEED)[0]
    unknown = [entry.key for entry in report.entries if entry.verdict is Verdict.UNKNOWN]
    assert unknown == [f"{DIT}.new_config.level", f"{DIT}.new_config.names"]


def test_a_misspelt_key_is_refused_and_may_be_allowed(tmp_path: Path) -> None:
    file = edited(tmp_path, SEED, (f"{VAE}.atention_config", {}))
    data = json.loads(file.read_text("utf-8"))
    del data["layer2_inference_config"]["vae_config"]["attention_config"]
    file.write_text(json.dumps(data, indent=1), "utf-8")
    with pytest.raises(UserError, match="has no such field; did you mean attention_config"):
        import_dump(file)
    assert import_dump(file, allow_unknown=True)[1].of(Verdict.UNKNOWN)


def test_dpm_of_the_small_network_is_euler(tmp_path: Path) -> None:
    dump = {
        "pipeline_type": "Wan22TI2VPipeline",
        "layer1_model_definition": {"models": []},
        "layer2_inference_config": {"sample_solver": "dpm++"},
    }
    file = tmp_path / "dump.json"
    file.write_text(json.dumps(dump))
    spec, report = import_dump(file)
    assert (spec.sampler.solver, spec.sampler.sigmas) == (Solver.EULER, SigmaTable.FULL_RANGE)
    (entry,) = [entry for entry in report.entries if entry.key.endswith("sample_solver")]
    assert entry.verdict is Verdict.CONFLICT
    assert "builds TeleFuser's Euler sampler" in entry.text


def test_attention_that_leaves_out_keys(tmp_path: Path) -> None:
    config = {"sparse_impl": "radial", "dense_timesteps": 12, "use_sage_attention": True}
    spec = made(
        tmp_path,
        (f"{DIT}.attention_config", {"attn_impl": "RADIAL_ATTN", "sparse_config": config}),
    )
    assert spec.sparse_attention is not None
    assert (spec.sparse_attention.pattern, spec.sparse_attention.dense_steps) == (SparsePattern.RADIAL, 12)
    assert spec.runtime.attention is AttentionImpl.AUTO
    assert spec.approximate_attention is ApproximateAttention.SAGE


def test_quantised_networks(tmp_path: Path) -> None:
    spec = made(tmp_path, (f"{DIT}.quant_config", {"enabled": True, "quant_type": "TORCHAO_FP8"}))
    assert spec.quantization is not None
    assert (spec.quantization.format, spec.quantization.group_size) == (QuantFormat.FP8, None)
    assert spec.quantization.modules == ("*",)
    assert spec.quantization.skip == (
        "proj_out",
        "condition_embedder.time_embedder",
        "condition_embedder.time_proj",
        "patch_embedding",
    )
    assert problems(spec) == []


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({"mode": "reduce-overhead"}, CompileMode.REDUCE_OVERHEAD),
        ({"triton_cudagraphs": True}, CompileMode.REDUCE_OVERHEAD),
        ({"max_autotune": True, "coordinate_descent_tuning": True}, CompileMode.MAX_AUTOTUNE_NO_CUDAGRAPHS),
        ({}, CompileMode.DEFAULT),
    ],
)
def test_options_of_the_compiler_are_presets(
    options: dict[str, Any], mode: CompileMode, tmp_path: Path
) -> None:
    spec = made(
        tmp_path,
        ("layer2_inference_config.dit_high_config.compile_config", {"enabled": True, **options}),
        ("layer2_inference_config.dit_low_config.compile_config", {"enabled": True, **options}),
        source=WAN22,
    )
    assert (spec.runtime.compile.enabled, spec.runtime.compile.mode) == (True, mode)
    assert not spec.runtime.compile.fullgraph


def test_experts_share_what_changes_results(tmp_path: Path) -> None:
    low = "layer2_inference_config.dit_low_config"
    told = refusal(tmp_path, (f"{low}.torch_dtype", "float16"), source=WAN22)
    assert told == (
        f"{low}.torch_dtype: differs from layer2_inference_config.dit_high_config.torch_dtype, but both "
        "experts share spec.dtype"
    )
    file = edited(tmp_path, WAN22, (f"{low}.parallel_config.timeout", 5))
    spec, report = import_dump(file)
    assert spec.runtime.parallel.timeout_seconds == 600
    (entry,) = [entry for entry in report.entries if entry.verdict is Verdict.CONFLICT]
    assert entry.key == f"{low}.parallel_config.timeout"


def test_degrees_without_ranks_are_unread(tmp_path: Path) -> None:
    file = edited(tmp_path, SEED, ("layer2_inference_config.enable_denoising_parallel", False))
    spec, report = import_dump(file)
    assert spec.runtime.guidance is GuidanceMode.SEQUENTIAL
    verdicts = {entry.key: entry.verdict for entry in report.entries}
    assert verdicts["layer2_inference_config.enable_denoising_parallel"] is Verdict.CONFLICT
    assert verdicts[f"{DIT}.parallel_config.cfg_degree"] is Verdict.DEAD


def test_weights_of_one_s_own_are_named_after_their_folder(tmp_path: Path) -> None:
    file = edited(
        tmp_path,
        WAN22,
        ("layer1_model_definition.models.0.path", "/a/fox-wan2.2-t2v/high.safetensors"),
        ("layer1_model_definition.models.1.path", "/b/fox-wan2.2-t2v/low.safetensors"),
    )
    spec, report = import_dump(file)
    assert spec.high_noise == ReleasedWeights(name="a/fox-wan2.2-t2v", subfolder="high.safetensors")
    assert spec.low_noise == ReleasedWeights(name="b/fox-wan2.2-t2v", subfolder="low.safetensors")
    assert "b/fox-wan2.2-t2v=/b/fox-wan2.2-t2v" in report.flags
