"""The rules that keep one source right on a CPU, on CUDA and on Ascend NPUs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mm_config.npu.refusals import refused
from mm_config.schema.errors import UserError
from mm_models import device
from tests.mm_models.device_rules import broken_rules, sources

ELSEWHERE = "packages/mm_train/src/mm_train/loop.py"
OPS = "packages/mm_models/src/mm_models/ops/attention.py"


def test_the_sources_keep_the_rules() -> None:
    found = dict(sources())
    assert len(found) > 100 and OPS in found and ELSEWHERE in found
    assert [line for path, source in found.items() for line in broken_rules(path, source)] == []


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("x = x.cuda()", ".cuda() moves to a kind of device"),
        ("network.npu(0)", ".npu() moves to a kind of device"),
        ("torch.cuda.synchronize()", "torch.cuda outside ops"),
        ("free = torch.npu.mem_get_info", "torch.npu outside ops"),
        ("from torch.cuda import Event", "import of torch.cuda outside ops"),
        ("from torch import cuda", "import of torch.cuda outside ops"),
        ("import torch_npu", "import of torch_npu outside ops"),
        ("place = torch.device('cuda:0')", "'cuda:0' named as the device"),
        ("x.to('npu')", "'npu' named as the device"),
        ("torch.zeros(3, device='cuda')", "'cuda' named as the device"),
        ("fused = device.type == 'npu'", "a decision by 'npu' outside ops"),
        ("fused = x.device.type in ('cpu', 'cuda')", "a decision by 'cuda' outside ops"),
    ],
)
def test_code_of_one_kind_of_device_is_found_outside_its_place(planted: str, found: str) -> None:
    (line,) = broken_rules(ELSEWHERE, f"import torch\n{planted}\n")
    assert line.startswith(f"{ELSEWHERE}:2: {found}")
    assert broken_rules(OPS, f"import torch\n{planted}\n") == []


@pytest.mark.parametrize("path", [ELSEWHERE, OPS])
@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("with torch.autocast(kind): pass", "autocast without dtype"),
        ("with torch.amp.autocast(kind, torch.bfloat16): pass", "autocast without dtype"),
        ("with torch.autocast(kind, dtype=torch.float16): pass", "autocast to float16"),
        ("with autocast(kind, dtype=torch.half): pass", "autocast to float16"),
        ("y = F.gelu(x)", "GELU that is not of the tanh form"),
        ("y = F.gelu(x, approximate=form)", "GELU that is not of the tanh form"),
        ("act = nn.GELU()", "GELU that is not of the tanh form"),
        ("act = nn.GELU('none')", "GELU that is not of the tanh form"),
        ("from torch.nn.functional import gelu", "import of gelu"),
        ("y = torch.view_as_complex(x)", "complex numbers"),
    ],
)
def test_what_ascend_computes_otherwise_is_found_everywhere(path: str, planted: str, found: str) -> None:
    (line,) = broken_rules(path, f"{planted}\n")
    assert line.startswith(f"{path}:1: {found}")


@pytest.mark.parametrize(
    "fine",
    [
        "with torch.autocast(kind, dtype=torch.bfloat16): pass",
        "y = F.gelu(x, approximate='tanh')",
        "gelu = nn.GELU('tanh')\ny = gelu(x)",
        "x = x.to(device)",
        "torch.accelerator.synchronize()",
        "on_host = device.type == 'cpu'",
        "from mm_models.ops import attention\nattention.npu(query, key, value)",
    ],
)
def test_what_works_everywhere_is_left_alone(fine: str) -> None:
    assert broken_rules(ELSEWHERE, fine) == []


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"INF_NAN_MODE_ENABLE": "0"}, ["INF_NAN_MODE_ENABLE"]),
        ({"INF_NAN_MODE_FORCE_DISABLE": "1"}, ["INF_NAN_MODE_FORCE_DISABLE"]),
        ({"TORCH_TRANSFER_TO_NPU": "1"}, ["TORCH_TRANSFER_TO_NPU"]),
        ({"TORCH_TRANSFER_TO_NPU": "true"}, ["TORCH_TRANSFER_TO_NPU"]),
        ({"INF_NAN_MODE_ENABLE": ""}, ["INF_NAN_MODE_ENABLE"]),
        (
            {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True", "PYTORCH_ALLOC_CONF": ""},
            ["PYTORCH_NPU_ALLOC_CONF"],
        ),
        ({"INF_NAN_MODE_ENABLE": "1", "TORCH_TRANSFER_TO_NPU": "0", "PYTORCH_ALLOC_CONF": ""}, []),
    ],
)
def test_an_npu_is_not_used_where_its_environment_hides_errors(
    variables: dict[str, str], named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [problem.path for problem in refused(variables)] == named
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert device.pick("cpu").type == "cpu"
    if named:
        with pytest.raises(UserError, match=rf"^{named[0]}: (is|must be 0 or 1, got) "):
            device.prepare_npu()


def test_torch_npu_beside_a_torch_for_cuda_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch_npu.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert device.pick("cpu").type == "cpu"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(UserError, match=r"torch_npu is installed beside torch .* built for CUDA"):
        device.pick("cpu")


def test_rounding_of_float32_products_is_what_the_spec_says() -> None:
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for allowed in (True, False):
            device.allow_tf32(torch.device("cuda"), allowed)
            assert [switch.allow_tf32 for switch in switches] == [allowed, allowed]
            device.allow_tf32(torch.device("cpu"), not allowed)
            assert [switch.allow_tf32 for switch in switches] == [allowed, allowed]
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
