"""A run's variables, put into the environment before the libraries that read them are imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager

from mm_config.npu.advice import DETERMINISTIC
from mm_config.npu.variables import ALLOCATOR, OTHER_ALLOCATOR, VARIABLES, between, read, refused, variables
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.root import RootSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec


def variables_of(spec: RootSpec) -> dict[str, str]:
    """The variables that a run of a spec exports, with their text; none where it can't come to use an NPU.

    A deterministic run adds the two that make its sums repeatable.
    """
    if not isinstance(spec, (TrainSpec, InferSpec)) or spec.runtime.device not in ("auto", "npu"):
        return {}
    found = {} if spec.runtime.npu is None else variables(spec.runtime.npu)
    if spec.runtime.deterministic:
        found = variables(DETERMINISTIC) | found
    return found


def check_environment(spec: RootSpec) -> None:
    """Refuses a run that this environment does not let be what its spec says.

    Raises:
        UserError: The environment says something else, or torch_npu, which reads it once, is imported.
    """
    asked, problems = variables_of(spec), list[Problem]()
    if isinstance(spec, (TrainSpec, InferSpec)) and spec.runtime.device == "npu":
        problems += refused(os.environ)
    if asked:
        problems += conflicts(asked, os.environ)
    late = sorted(asked.keys() - os.environ.keys())
    if late and "torch_npu" in sys.modules:
        why = (
            f"asks for {', '.join(late)}, and torch_npu, which reads such variables once, is already "
            "imported; export them before, or ask for them in the experiment that starts this one"
        )
        problems.append(Problem("spec.runtime.npu", why))
    if problems:
        raise UserError(problems)


@contextmanager
def exported(spec: RootSpec) -> Generator[Mapping[str, str]]:
    """Sets a run's variables for the length of a block; processes that it starts inherit them.

    Raises:
        UserError: As `check_environment` does.
    """
    check_environment(spec)
    asked = variables_of(spec)
    added = {name: text for name, text in asked.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield added
    finally:
        for name in added:
            os.environ.pop(name, None)


def conflicts(asked: Mapping[str, str], environment: Mapping[str, str]) -> Iterator[Problem]:
    """What stands between variables that are to be exported and an environment that may have some already.

    Args:
        asked: What `variables_of` gives.
        environment: The shell's variables.
    """
    for variable in VARIABLES:
        name, path = variable.name, f"spec.runtime.npu.{variable.field}"
        if name not in asked:
            continue
        if name in environment and not _equal(name, asked[name], environment[name]):
            yield Problem(
                path,
                f"asks for {name}={asked[name]}, but the shell has {name}={environment[name]}; unset it "
                "there, or change the spec",
            )
        if name == ALLOCATOR and OTHER_ALLOCATOR in environment:
            yield Problem(
                path,
                f"sets {name}, but the shell has {OTHER_ALLOCATOR}, and torch_npu refuses both; unset it",
            )
    alone = set(between(read(environment)[0]))
    for problem in between(read({**environment, **asked})[0]):
        if problem not in alone:
            yield Problem("spec.runtime.npu", f"with the shell's variables, {problem.path} {problem.message}")


def _equal(name: str, one: str, other: str) -> bool:
    """Whether two texts of a variable say the same."""
    ours, theirs = read({name: one}), read({name: other})
    return one == other or (not theirs[1] and ours == theirs)
