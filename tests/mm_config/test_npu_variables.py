"""Environment variables of an NPU as fields of a spec, and back."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import assume, given, settings

from mm_config import problems
from mm_config.npu.advice import ADVICE, ADVISED, DETERMINISTIC
from mm_config.npu.variables import RECORDED, VARIABLES, between, read, variables
from mm_config.specs.npu import (
    Affinity,
    InductorBackend,
    NpuAffinitySpec,
    NpuAllocatorSpec,
    NpuCoresSpec,
    NpuSpec,
    PageSize,
)
from tests.mm_config.strategies import specs

WHOLE = NpuSpec(
    allocator=NpuAllocatorSpec(
        expandable_segments=True,
        base_addr_aligned_kb=16,
        page_size=PageSize.ONE_GIB,
        roundup_power2_divisions=4,
        multi_stream_lazy_reclaim=False,
        pinned_use_background_threads=True,
        pinned_mem_register=True,
        pin_memory_expandable_segments=False,
    ),
    task_queue=2,
    launch_blocking=False,
    combined=True,
    affinity=NpuAffinitySpec(
        mode=Affinity.FINE,
        force=True,
        npu_affine=False,
        bind_irq=False,
        cores=(NpuCoresSpec(npu=0, first=0, last=7), NpuCoresSpec(npu=1, first=8, last=15)),
    ),
    stream_memory_reuse=3,
    per_stream_queue=True,
    aclnn_cache_limit=100000,
    hccl_connect_timeout=1200,
    hccl_exec_timeout=1000,
    hccl_event_timeout=1100,
    hccl_buffer_mb=200,
    hccl_deterministic=True,
    close_matmul_k_shift=True,
    hccl_dfs_config="cluster_heartbeat:on,stuck_detection:on",
    hccl_async_error_handling=1,
    hccl_desync_debug=True,
    visible_devices=(4, 5, 6, 7),
    log_level=3,
    log_to_stdout=False,
    inductor_backend=InductorBackend.MLIR,
    forbid_cpu_fallback=True,
    silent_error_detection=1,
)
WRITTEN = {
    "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True,base_addr_aligned_kb:16,page_size:1g,"
    "roundup_power2_divisions:4,multi_stream_lazy_reclaim:False,pinned_use_background_threads:True,"
    "pinned_mem_register:True,pin_memory_expandable_segments:False",
    "TASK_QUEUE_ENABLE": "2",
    "ASCEND_LAUNCH_BLOCKING": "0",
    "COMBINED_ENABLE": "1",
    "CPU_AFFINITY_CONF": "2,force:1,npu_affine:0,bind_irq:0,npu0:0-7,npu1:8-15",
    "MULTI_STREAM_MEMORY_REUSE": "3",
    "PER_STREAM_QUEUE": "1",
    "ACLNN_CACHE_LIMIT": "100000",
    "HCCL_CONNECT_TIMEOUT": "1200",
    "HCCL_EXEC_TIMEOUT": "1000",
    "HCCL_EVENT_TIMEOUT": "1100",
    "HCCL_BUFFSIZE": "200",
    "HCCL_DETERMINISTIC": "true",
    "CLOSE_MATMUL_K_SHIFT": "1",
    "HCCL_DFS_CONFIG": "cluster_heartbeat:on,stuck_detection:on",
    "TORCH_HCCL_ASYNC_ERROR_HANDLING": "1",
    "TORCH_HCCL_DESYNC_DEBUG": "1",
    "ASCEND_RT_VISIBLE_DEVICES": "4,5,6,7",
    "ASCEND_GLOBAL_LOG_LEVEL": "3",
    "ASCEND_SLOG_PRINT_TO_STDOUT": "0",
    "TORCHINDUCTOR_NPU_BACKEND": "mlir",
    "TORCH_NPU_FALLBACK_CPU_DISABLE": "1",
    "NPU_ASD_ENABLE": "1",
}


def test_every_field_has_a_variable_and_is_written_as_the_libraries_read_it() -> None:
    assert {variable.field for variable in VARIABLES} == set(attrs.fields_dict(NpuSpec))
    assert not problems(WHOLE)
    assert variables(WHOLE) == WRITTEN
    assert read(WRITTEN) == (WHOLE, [])


def test_what_is_unset_is_no_variable() -> None:
    assert variables(NpuSpec()) == {}
    assert read({"HOME": "/root", "WANDB_API_KEY": "secret"}) == (NpuSpec(), [])
    assert "WANDB_API_KEY" not in RECORDED


@settings(max_examples=200, deadline=None)
@given(specs(NpuSpec))
def test_every_valid_spec_is_read_back_from_its_variables(npu: NpuSpec) -> None:
    assume(not problems(npu))
    assert read(variables(npu)) == (npu, [])


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        # torch_npu 2.13 takes these four without a word.
        ("CPU_AFFINITY_CONF", "9", "the mode must be 0 or 1 or 2, got '9'"),
        ("MULTI_STREAM_MEMORY_REUSE", "7", "must be <= 3, got 7"),
        ("COMBINED_ENABLE", "2", "must be 0 or 1, got '2'"),
        ("HCCL_CONNECT_TIMEOUT", "abc", "must be a whole number, got 'abc'"),
        # These it refuses itself, some of them when the first tensor is made.
        ("TASK_QUEUE_ENABLE", "3", "must be <= 2, got 3"),
        ("PYTORCH_NPU_ALLOC_CONF", "foo:1", "has no option 'foo'; it has expandable_segments, max_split"),
        ("PYTORCH_NPU_ALLOC_CONF", "expandable_segments:Maybe", "must be False or True, got 'Maybe'"),
        ("PYTORCH_NPU_ALLOC_CONF", "max_split_size_mb:10", "max_split_size_mb must be >= 21 MB, got 10"),
        ("PYTORCH_NPU_ALLOC_CONF", "garbage_collection_threshold:1.5", "must be < 1, got 1.5"),
        ("PYTORCH_NPU_ALLOC_CONF", "base_addr_aligned_kb:17", "must be <= 16 kB, got 17"),
        ("PYTORCH_NPU_ALLOC_CONF", "page_size:2m", "page_size must be 1g, got '2m'"),
        # And these are slips.
        ("PYTORCH_NPU_ALLOC_CONF", "expandable_segment:True", "did you mean expandable_segments"),
        ("PYTORCH_NPU_ALLOC_CONF", "expandable_segments:true", "got 'true'; did you mean True?"),
        ("PYTORCH_NPU_ALLOC_CONF", "expandable_segments=True", "expected name:value"),
        ("PYTORCH_NPU_ALLOC_CONF", "page_size:1g,page_size:1g", "page_size is given twice"),
        ("PYTORCH_NPU_ALLOC_CONF", "segment_size_mb:64", "write large_segment_size_mb"),
        ("PYTORCH_NPU_ALLOC_CONF", "roundup_power2_divisions:[256:1,512:2]", "give one number"),
        ("CPU_AFFINITY_CONF", "1,npu0:3", "npu0 must be a range of cores such as 0-7, got '3'"),
        ("CPU_AFFINITY_CONF", "1,forse:1", "has no option 'forse'; did you mean force?"),
        ("HCCL_CONNECT_TIMEOUT", "60", "must be >= 120 s, got 60"),
        ("HCCL_EXEC_TIMEOUT", "20000", "must be <= 17340 s, got 20000"),
        ("HCCL_DETERMINISTIC", "1", "must be false or true, got '1'"),
        ("ASCEND_RT_VISIBLE_DEVICES", "0, 1", "with commas between and no spaces, got '0, 1'"),
        ("ASCEND_GLOBAL_LOG_LEVEL", "5", "must be <= 4, got 5"),
        ("TORCHINDUCTOR_NPU_BACKEND", "mlri", "got 'mlri'; did you mean mlir?"),
        ("TORCH_HCCL_ASYNC_ERROR_HANDLING", "4", "must be <= 3, got 4"),
    ],
)
def test_a_wrong_text_is_one_problem_with_what_is_allowed(variable: str, text: str, message: str) -> None:
    npu, found = read({variable: text})
    assert npu == NpuSpec()
    assert [problem.path for problem in found] == [variable]
    assert message in found[0].message


@pytest.mark.parametrize(
    ("variable", "text", "messages"),
    [
        (
            "PYTORCH_NPU_ALLOC_CONF",
            "page_siz:1g,expandable_segments:yes,max_split_size_mb:10",
            [
                "has no option 'page_siz'; did you mean page_size?",
                "expandable_segments must be False or True, got 'yes'",
                "max_split_size_mb must be >= 21 MB, got 10",
            ],
        ),
        (
            "CPU_AFFINITY_CONF",
            "9,forse:1,npu0:3",
            [
                "the mode must be 0 or 1 or 2, got '9'",
                "has no option 'forse'; did you mean force?",
                "npu0 must be a range of cores such as 0-7, got '3'",
            ],
        ),
    ],
)
def test_all_that_is_wrong_with_a_variable_is_told_at_once(
    variable: str, text: str, messages: list[str]
) -> None:
    npu, found = read({variable: text})
    assert npu == NpuSpec()
    assert [(problem.path, problem.message) for problem in found] == [(variable, one) for one in messages]


def test_the_allocator_s_other_name_is_read_where_the_first_is_unset() -> None:
    npu, found = read({"PYTORCH_ALLOC_CONF": "expandable_segments:True"})
    assert (npu.allocator.expandable_segments, found) == (True, [])
    assert read({"PYTORCH_ALLOC_CONF": "max_split_size_mb:1"})[1][0].path == "PYTORCH_ALLOC_CONF"


def test_contradictions_are_named_by_their_variable() -> None:
    npu, found = read(
        {
            "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True,max_split_size_mb:64",
            "TASK_QUEUE_ENABLE": "2",
            "ASCEND_LAUNCH_BLOCKING": "1",
            "HCCL_EXEC_TIMEOUT": "3600",
        }
    )
    assert not found
    assert {problem.path: problem.message for problem in between(npu)} == {
        "PYTORCH_NPU_ALLOC_CONF": "max_split_size_mb can't be had with expandable_segments; leave one of "
        "them out",
        "TASK_QUEUE_ENABLE": "is 2, but ASCEND_LAUNCH_BLOCKING=1 turns the queue off; choose 0, or leave "
        "one of them out",
        "HCCL_EVENT_TIMEOUT": "must exceed HCCL_EXEC_TIMEOUT (3600 s), but is unset, 1868 s in HCCL",
    }


def test_what_is_advised_is_valid_and_is_what_the_table_says() -> None:
    assert not problems(ADVISED)
    assert not problems(DETERMINISTIC)
    assert variables(ADVISED) == {one.variable: one.advised for one in ADVICE if one.advised is not None}
