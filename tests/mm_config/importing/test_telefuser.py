"""TeleFuser's dumps become inference specs, and the report says what became of every value."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from mm_config.families import wan21, wan22
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
from mm_config.specs.serving import GuidanceMode, QuantFormat, Residency, SparsePattern
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


def test_the_official_spec_is_that_of_our_experiment() -> None:
    for known in KNOWN:
        if known.experiment:
            name = known.experiment.removesuffix(".py").replace("/", ".")
            spec = importlib.import_module(name).SPEC
            assert attrs.evolve(spec, samples=SamplesSpec(), name="") == known.official


def test_the_seed_s_dump() -> None:
    spec, report = import_dump(SEED)
    family = wan21.T2V_1_3B
    assert (spec.model, spec.boundary, spec.high_noise) == (family.model, None, family.high_noise)
    assert (spec.dtype, get(spec, "autoencoder.dtype")) == (Dtype.BFLOAT16, Dtype.BFLOAT16)
    assert (spec.sampler.solver, spec.sampler.sigmas) == (Solver.EULER, SigmaTable.FULL_RANGE)
    assert (spec.sampler.steps, spec.sampler.shift) == (50, 8.0)
    assert (spec.runtime.compile.enabled, spec.runtime.compile.fullgraph) == (True, False)
    assert spec.runtime.attention is AttentionImpl.FLASH_3
    assert spec.runtime.guidance is GuidanceMode.PARALLEL
    assert problems(spec) == []
    found = {entry.key: (line_of(entry), entry.verdict) for entry in report.entries}
    texts = {entry.key: entry.text for entry in report.entries}
    assert texts[f"{DIT}.parallel_config.cfg_degree"] == "spec.runtime.guidance = parallel"
    assert found["layer2_inference_config.sample_solver"] == (22, Verdict.MAPPED)
    assert found["layer1_model_definition.models[0].class"] == (12, Verdict.CONFLICT)
    assert found[f"{DIT}.compile"] == (42, Verdict.MAPPED)
    assert found["timestamp"] == (3, Verdict.OUTSIDE)
    assert report.flags == ("--location", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers=/dev/shm/Wan2.1-T2V-1.3B")
    assert "spec.sampler.shift = 8.0 (sigma_shift; 5.0 runs where a script gives none)" in report.more[ABSENT]
    (compared,) = report.comparisons
    assert [change.path for change in compared.changes][:2] == [
        "spec.autoencoder.dtype",
        "spec.sampler.solver",
    ]


def test_the_seed_s_dump_as_it_is_printed_is_cut_short() -> None:
    with pytest.raises(UserError, match=r"printed.json:33: layer2_inference_config.dit_config: .*cut short"):
        import_dump(DATA / "telefuser_seed_as_printed.json")


def test_a_dump_of_two_experts() -> None:
    spec, report = import_dump(WAN22)
    assert (spec.boundary, spec.low_noise) == (0.875, wan22.T2V_A14B.low_noise)
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
        for entry in report.entries:
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
            "Wan2.2 I2V-A14B in four steps",
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


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pipeline_type": "HunyuanVideo15Pipeline"}, "is no pipeline of Wan's networks"),
        ({"pipeline_type": "Wan21VideoPipelin"}, "did you mean Wan21VideoPipeline?"),
        ({"pipeline_type": 3}, "expected one of Wan21VideoPipeline"),
        ({"layer1_model_definition.models.1.path": "/m/Wan2.1-I2V-14B/x.safetensors"}, "can't be told"),
        ({"layer1_model_definition.models.1.path": "/m/Wan2.2-T2V-14B/x.safetensors"}, "fits none of"),
        ({"layer1_model_definition.models.0.name": "spaceship"}, "'spaceship' of class 'TAEHV' is no model"),
        ({"layer1_model_definition.models.0.path": "/m/taew2_1.pth"}, "small decoder that only resembles"),
        ({"layer2_inference_config.enable_vfi": True}, "no network interpolates frames here"),
        ({"layer2_inference_config.enable_clip_stage": True}, "can't be told"),
        ({"layer2_inference_config.sample_solver": "dpm++"}, "expected one of euler, unipc, got 'dpm++'"),
        ({"layer2_inference_config.sample_slover": "euler"}, "did you mean sample_solver?"),
        ({"version": "2.0"}, "expected '1.0'"),
        ({"device": "xpu"}, "expected cuda, npu, cpu, got 'xpu'"),
        ({f"{DIT}.torch_dtype": "float8_e4m3fn"}, "expected one of bfloat16, float16, float32"),
        ({f"{DIT}.attention_config.attn_impl": "SPARGE_ATTN"}, "has no counterpart"),
        ({f"{DIT}.attention_config.attn_impl": "RADIAL_ATTN"}, "sparse_impl is None, not radial"),
        ({f"{DIT}.attention_config.dropout": 0.1}, "only 0.0 can be taken over"),
        ({f"{DIT}.attention_config.is_causal": True}, "only false can be taken over"),
        ({f"{VAE}.attention_config.attn_impl": "SAGE_ATTN_2_8_8"}, "is not exact"),
        ({f"{VAE}.quant_config": {"enabled": True}}, "the autoencoder can't be quantised"),
        ({f"{DIT}.quant_config": {"enabled": True, "weight_block_size": [128, 128]}}, "only null"),
        ({f"{DIT}.quant_config": {"enabled": True, "quant_type": "MXFP8"}}, "MXFP8 has groups of 32"),
        ({f"{DIT}.quant_config": {"enabled": True, "skip_modules": ["haed"]}}, "'haed' is none of"),
        ({f"{DIT}.parallel_config.device_ids": [0]}, "has 1 devices, but the product of the degrees is 2"),
        ({f"{DIT}.parallel_config": {"pp_degree": 2}}, "generation has no pipeline of ranks"),
        ({f"{DIT}.parallel_config": {"sp_ulysses_degree": 5}}, "can't share the 12 heads"),
        ({f"{DIT}.compile_config": {"enabled": True}}, "stands beside compile_config"),
        (
            {f"{DIT}.offload_config": {"offload_type": "ASYNC_CPU_OFFLOAD", "offload_ratio": 2}},
            "must be <= 1, got 2.0 (spec.runtime.residency.share)",
        ),
        ({"layer2_inference_config.vae_config": None}, "expected an object, got null"),
    ],
)
def test_what_can_t_be_taken_over_is_refused_at_its_line(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    assert told in refusal(tmp_path, *changes.items())


def test_missing_layers_are_told_together(tmp_path: Path) -> None:
    file = tmp_path / "dump.json"
    file.write_text("{}")
    with pytest.raises(UserError) as caught:
        import_dump(file)
    assert [str(problem) for problem in caught.value.problems] == [
        f"{file}:1: {name}: is missing; dump_config writes it"
        for name in ("pipeline_type", "layer1_model_definition", "layer2_inference_config")
    ]
    file.write_text("[]")
    with pytest.raises(UserError, match="expected an object, as dump_config writes it"):
        import_dump(file)


def test_unknown_keys_are_reported_where_that_is_allowed(tmp_path: Path) -> None:
    file = edited(tmp_path, SEED, (f"{DIT}.new_config", {"level": 3, "names": ["a"]}))
    with pytest.raises(UserError, match="new_config: TeleFuser's ModelRuntimeConfig has no such field"):
        import_dump(file)
    spec, report = import_dump(file, allow_unknown=True)
    assert spec == import_dump(SEED)[0]
    unknown = [entry.key for entry in report.entries if entry.verdict is Verdict.UNKNOWN]
    assert unknown == [f"{DIT}.new_config.level", f"{DIT}.new_config.names"]


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
    assert spec.runtime.attention is AttentionImpl.SAGE


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
    assert spec.high_noise == ReleasedWeights(name="a/fox-wan2.2-t2v", subfolder="high")
    assert spec.low_noise == ReleasedWeights(name="b/fox-wan2.2-t2v", subfolder="low")
    assert "b/fox-wan2.2-t2v=/b/fox-wan2.2-t2v" in report.flags
