"""What no spec can say of a dump is refused, at its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mm_config.importing.telefuser.importer import import_dump
from mm_config.schema.errors import UserError
from tests.mm_config.importing.telefuser_files import DIT, refusal


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"pipeline_type": "HunyuanVideo15Pipeline"},
            "Wan's networks alone have families here, got 'HunyuanVideo15Pipeline'",
        ),
        ({"pipeline_type": "Wan21VideoPipelin"}, "did you mean Wan21VideoPipeline?"),
        ({"pipeline_type": 3}, "expected one of Wan21VideoPipeline"),
        ({"layer1_model_definition.models.1.path": "/m/Wan2.1-I2V-14B/x.safetensors"}, "can't be told"),
        (
            {
                "layer1_model_definition.models.1.path": "/m/Wan2.1-I2V-14B/x.safetensors",
                "layer1_model_definition.models.0.path": "/m/vae.pth",
                "layer2_inference_config.enable_clip_stage": True,
            },
            "fits Wan2.1 I2V-14B-480P, Wan2.1 I2V-14B-720P",
        ),
        ({"layer1_model_definition.models.1.path": "/m/Wan2.2-T2V-14B/x.safetensors"}, "fits none of"),
        ({"layer2_inference_config.sample_solver": "dpm++"}, "expected one of euler, unipc, got 'dpm++'"),
        ({"layer2_inference_config.sample_solver": None}, "expected one of euler, unipc, got null"),
        ({"version": "2.0"}, "expected '1.0'"),
        ({f"{DIT}.torch_dtype": "float8_e4m3fn"}, "expected one of bfloat16, float16, float32"),
        ({f"{DIT}.attention_config.attn_impl": "SPARGE_ATTN"}, "has no counterpart"),
        (
            {
                f"{DIT}.attention_config": {
                    "attn_impl": "RADIAL_ATTN",
                    "sparse_config": {"sparse_impl": "local"},
                }
            },
            "sparse_impl is local, not radial",
        ),
        ({f"{DIT}.attention_config.dropout": 0.1}, "only 0.0 can be taken over"),
        ({f"{DIT}.attention_config.is_causal": True}, "only false can be taken over"),
        ({f"{DIT}.quant_config": {"enabled": True, "weight_block_size": [128, 128]}}, "only null"),
        ({f"{DIT}.quant_config": {"enabled": True, "quant_type": "MXFP8"}}, "MXFP8 has groups of 32"),
        ({f"{DIT}.quant_config": {"enabled": True, "skip_modules": ["haed"]}}, "'haed' is none of"),
        ({f"{DIT}.parallel_config": {"sp_ulysses_degree": 5}}, "can't share the 12 heads"),
        (
            {f"{DIT}.offload_config": {"offload_type": "ASYNC_CPU_OFFLOAD", "offload_ratio": 2}},
            "must be <= 1, got 2.0 (spec.runtime.residency.share)",
        ),
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
