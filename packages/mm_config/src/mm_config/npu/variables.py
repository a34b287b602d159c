"""The environment variables of an NPU's libraries, as fields of `NpuSpec`, in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from mm_config.npu import texts
from mm_config.npu.texts import Form
from mm_config.rules import problems
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.fields import spec_fields
from mm_config.schema.ranges import range_problems
from mm_config.specs.npu import UNSET_AFFINITY, UNSET_ALLOCATOR, InductorBackend, NpuSpec


@attrs.frozen
class Variable:
    """One environment variable and its field."""

    name: str
    """In the environment."""
    field: str
    """Path below `spec.runtime.npu`."""
    form: Form
    """How its values are written."""


VARIABLES: tuple[Variable, ...] = (
    Variable("PYTORCH_NPU_ALLOC_CONF", "allocator", texts.ALLOCATOR),
    Variable("TASK_QUEUE_ENABLE", "task_queue", texts.WHOLE),
    Variable("ASCEND_LAUNCH_BLOCKING", "launch_blocking", texts.DIGIT_SWITCH),
    Variable("COMBINED_ENABLE", "combined", texts.DIGIT_SWITCH),
    Variable("CPU_AFFINITY_CONF", "affinity", texts.AFFINITY),
    Variable("MULTI_STREAM_MEMORY_REUSE", "stream_memory_reuse", texts.WHOLE),
    Variable("PER_STREAM_QUEUE", "per_stream_queue", texts.DIGIT_SWITCH),
    Variable("ACLNN_CACHE_LIMIT", "aclnn_cache_limit", texts.WHOLE),
    Variable("HCCL_CONNECT_TIMEOUT", "hccl_connect_timeout", texts.WHOLE),
    Variable("HCCL_EXEC_TIMEOUT", "hccl_exec_timeout", texts.WHOLE),
    Variable("HCCL_EVENT_TIMEOUT", "hccl_event_timeout", texts.WHOLE),
    Variable("HCCL_BUFFSIZE", "hccl_buffer_mb", texts.WHOLE),
    Variable("HCCL_DETERMINISTIC", "hccl_deterministic", texts.LOWER_SWITCH),
    Variable("CLOSE_MATMUL_K_SHIFT", "close_matmul_k_shift", texts.DIGIT_SWITCH),
    Variable("HCCL_DFS_CONFIG", "hccl_dfs_config", texts.TEXT),
    Variable("TORCH_HCCL_ASYNC_ERROR_HANDLING", "hccl_async_error_handling", texts.WHOLE),
    Variable("TORCH_HCCL_DESYNC_DEBUG", "hccl_desync_debug", texts.DIGIT_SWITCH),
    Variable("ASCEND_RT_VISIBLE_DEVICES", "visible_devices", texts.NUMBERS),
    Variable("ASCEND_GLOBAL_LOG_LEVEL", "log_level", texts.WHOLE),
    Variable("ASCEND_SLOG_PRINT_TO_STDOUT", "log_to_stdout", texts.DIGIT_SWITCH),
    Variable("TORCHINDUCTOR_NPU_BACKEND", "inductor_backend", texts.choice(InductorBackend)),
    Variable("TORCH_NPU_FALLBACK_CPU_DISABLE", "forbid_cpu_fallback", texts.DIGIT_SWITCH),
    Variable("NPU_ASD_ENABLE", "silent_error_detection", texts.WHOLE),
)
ALLOCATOR = "PYTORCH_NPU_ALLOC_CONF"
OTHER_ALLOCATOR = "PYTORCH_ALLOC_CONF"
"""The name that torch_npu from 26.2 on reads as well; both together are an error there."""
_SATURATING = "turns inf into 65504 and NaN into 0, so that a broken step looks like a sound one; unset it"
_REFUSED = {
    "INF_NAN_MODE_ENABLE": ("0", _SATURATING),
    "INF_NAN_MODE_FORCE_DISABLE": ("1", _SATURATING),
    "TORCH_TRANSFER_TO_NPU": ("1", "replaces torch.cuda's functions in every library; unset it"),
}
"""Switches of 0 and 1, with the value that is refused and why."""
UNSPOKEN = (*_REFUSED, "ASCEND_HOME_PATH", "ASCEND_OPP_PATH")
"""Variables that matter and have no field: one value is refused, or `set_env.sh` sets them."""
RECORDED: tuple[str, ...] = (*(variable.name for variable in VARIABLES), OTHER_ALLOCATOR, *UNSPOKEN)
"""What a run's provenance keeps of the environment; none of it is a secret."""

_UNSET: tuple[Any, ...] = (None, UNSET_ALLOCATOR, UNSET_AFFINITY)
_NAMES = {variable.field: variable.name for variable in VARIABLES}


def variables(npu: NpuSpec) -> dict[str, str]:
    """The variables that a spec sets, with their text."""
    given = ((variable, getattr(npu, variable.field)) for variable in VARIABLES)
    return {variable.name: variable.form.write(value) for variable, value in given if is_set(value)}


def is_set(value: Any) -> bool:
    """Whether the value of a field says something, so that its variable is set."""
    return value not in _UNSET


def read(environment: Mapping[str, str]) -> tuple[NpuSpec, list[Problem]]:
    """The variables of an environment as a spec.

    Where only torch's common name of the allocator's variable is set, that one is read.

    Returns:
        The spec, without the variables that say something wrong, and what is wrong with those, with the
        variable's name as the path. Rules between variables are not asked.
    """
    attributes = {attribute.name: attribute for attribute in spec_fields(NpuSpec)}
    values: dict[str, Any] = {}
    wrong: list[Problem] = []
    for variable in VARIABLES:
        name = variable.name
        if name == ALLOCATOR and name not in environment:
            name = OTHER_ALLOCATOR
        if name not in environment:
            continue
        try:
            value = variable.form.read(environment[name])
            if found := list(range_problems(value, attributes[variable.field])):
                raise UserError(Problem("", problem.message) for problem in found)
            values[variable.field] = value
        except UserError as error:
            wrong += [_named(name, problem) for problem in error.problems]
        except ValueError as error:
            wrong.append(Problem(name, str(error)))
    return NpuSpec(**values), wrong


def between(npu: NpuSpec) -> Iterator[Problem]:
    """What is wrong between the variables of an environment, with the name of one of them as the path."""
    for problem in problems(npu):
        field, _, inside = problem.path.removeprefix("spec.").partition(".")
        yield _named(_NAMES[field], Problem(inside, problem.message))


def refused(environment: Mapping[str, str]) -> Iterator[Problem]:
    """What of an environment hides errors, changes other libraries, or is refused by torch_npu itself.

    Paths are the variables' names.
    """
    for name, (value, reason) in _REFUSED.items():
        given = environment.get(name)
        if given == value:
            yield Problem(name, f"is {value}, which {reason}")
        elif given not in (None, "0", "1"):
            yield Problem(name, f"must be 0 or 1, got {given!r}")
    if ALLOCATOR in environment and OTHER_ALLOCATOR in environment:
        yield Problem(
            ALLOCATOR, f"is set beside {OTHER_ALLOCATOR}, which torch_npu refuses; unset one of them"
        )


def _named(variable: str, problem: Problem) -> Problem:
    """A problem of a part of a variable, with the variable as its path."""
    return Problem(variable, f"{problem.path} {problem.message}".lstrip())
