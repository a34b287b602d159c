"""What `mm doctor --device npu` asks beside the packages' checks; nothing of torch is imported for it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution, version
from itertools import zip_longest
from pathlib import Path

from mm_config.doctor.checks import BROKEN, OK, WARNING, Check
from mm_config.npu.advice import ADVICE, USELESS
from mm_config.npu.exporting import conflicts, variables_of
from mm_config.npu.variables import RECORDED, VARIABLES, between, read, refused
from mm_config.npu.versions import (
    NEWEST,
    PYTHONS,
    SOURCE,
    cann_folder,
    cann_of,
    cann_version,
    torch_npu_for,
    torch_of,
)
from mm_config.rules.npu import group_timeout, hccl_seconds
from mm_config.schema.root import RootSpec
from mm_config.schema.suggestions import nearest
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec

SET_ENV = "source set_env.sh of CANN, such as /usr/local/Ascend/cann/set_env.sh"
_OURS = re.compile(
    "ASCEND_|HCCL_|TORCH_HCCL_|TORCH_NPU_|PYTORCH_NPU_|TASK_|COMBINED_|CPU_AFF|MULTI_ST|INF_NAN_"
)


def npu_checks(spec: RootSpec | None, environment: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Versions that go together, the devices, the environment, and a run's variables beside it.

    Args:
        spec: The run that is meant; None for none.
        environment: The variables to look at.
    """
    yield from cann_checks(environment)
    folder = cann_folder(environment)
    yield from torch_checks(cann_version(folder) if folder is not None else None)
    yield _devices(Path("/dev"))
    yield from variable_checks(environment)
    if spec is not None:
        yield from run_checks(spec, environment)


def cann_checks(environment: Mapping[str, str]) -> Iterator[Check]:
    """Whether `set_env.sh` was sourced, and what it points at is there."""
    folder = cann_folder(environment)
    if folder is None:
        yield Check("CANN", BROKEN, "is not set up: ASCEND_HOME_PATH is unset", SET_ENV)
        return
    needed = [folder, folder / "runtime", folder / "compiler"]
    needed += [Path(environment["ASCEND_OPP_PATH"])] if environment.get("ASCEND_OPP_PATH") else []
    if gone := [str(path) for path in needed if not path.exists()]:
        yield Check("CANN", BROKEN, f"{', '.join(gone)} does not exist, and torch_npu refuses that", SET_ENV)
    elif "ASCEND_OPP_PATH" not in environment:
        yield Check("CANN", BROKEN, "ASCEND_OPP_PATH is unset, and torch_npu refuses that", SET_ENV)
    elif found := cann_version(folder):
        yield Check("CANN", OK, f"{found} in {folder}")
    else:
        yield Check("CANN", WARNING, f"in {folder}, but no file there says its version")


def torch_checks(cann: str | None) -> Iterator[Check]:
    """Whether torch, torch_npu, CANN and Python go together.

    Args:
        cann: The installed release, where it is known.
    """
    torch, torch_npu = _version_of("torch"), _version_of("torch_npu")
    if torch is None:
        newest = f'pip install "torch=={NEWEST.torch}" "torch_npu=={NEWEST.torch_npu}"'
        yield Check("torch_npu", BROKEN, "needs torch, which is not installed", newest)
        return
    fitting = f'pip install "{torch_npu_for(torch, cann)}"'
    python = platform.python_version_tuple()[:2]
    if torch_npu is None:
        known = cann_of(torch_npu_for(torch, cann).rpartition("==")[2])
        after = f" after CANN {known}" if known else ""
        yield Check(
            "torch_npu",
            BROKEN,
            f"is not installed, beside torch {torch}",
            f"{fitting}{after}; without CANN, import torch itself fails then",
        )
    elif torch_of(torch_npu) != torch.partition("+")[0]:
        yield Check("torch_npu", BROKEN, f"{torch_npu} is not for torch {torch}", fitting)
    else:
        yield _pairing(torch_npu, cann)
    if not PYTHONS[0] <= (int(python[0]), int(python[1])) <= PYTHONS[1]:
        first, last = (".".join(map(str, one)) for one in PYTHONS)
        yield Check("Python for torch_npu", WARNING, f"{'.'.join(python)}; wheels are for {first} to {last}")
    if built := _cuda_of_torch():
        # torch_npu can't be imported where torch finds a GPU.
        yield Check(
            "torch for the NPU",
            BROKEN,
            f"{torch} is built for CUDA {built}, and runs refuse torch_npu beside it",
            f"install torch's CPU build, torch=={torch.partition('+')[0]}+cpu on x86_64",
        )


def _pairing(torch_npu: str, cann: str | None) -> Check:
    documented = cann_of(torch_npu)
    if documented is None:
        newest = f"{NEWEST.torch_npu} with CANN {NEWEST.cann}"
        return Check(
            "torch_npu",
            WARNING,
            f"{torch_npu}: no CANN is documented for it",
            f"the newest documented pair is {newest} ({SOURCE})",
        )
    if cann is None:
        return Check("torch_npu", WARNING, f"{torch_npu} wants CANN {documented}; which is here is unknown")
    if cann != documented:
        return Check(
            "torch_npu",
            BROKEN,
            f"{torch_npu} is documented for CANN {documented}, not {cann} ({SOURCE})",
            f"install CANN {documented}, or {torch_npu_for(torch_of(torch_npu), cann)}",
        )
    return Check("torch_npu", OK, f"{torch_npu} with CANN {cann}, as documented")


def _cuda_of_torch() -> str | None:
    """The CUDA that torch was built for, read and not imported: torch_npu may keep torch from importing."""
    file = Path(str(distribution("torch").locate_file("torch/version.py")))
    text = file.read_text("utf-8") if file.is_file() else ""
    found = re.search(r"^cuda\b[^=]*= *['\"]([^'\"]+)", text, re.MULTILINE)
    return found[1] if found else None


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices(folder: Path) -> Check:
    found = [path for path in folder.glob("davinci*") if path.name.removeprefix("davinci").isdecimal()]
    if found:
        return Check("NPU devices", OK, f"{len(found)} in {folder}")
    remedy = "install the driver; a container is given --device=/dev/davinci0 and its managers"
    return Check("NPU devices", WARNING, f"no {folder}/davinci0 or other", remedy)


def variable_checks(environment: Mapping[str, str]) -> Iterator[Check]:
    """Every variable that an NPU's libraries read, by the typed model, beside what MindSpeed-MM sets."""
    npu, wrong = read(environment)
    wrong += between(npu)
    for problem in wrong:
        yield Check(problem.path, BROKEN, problem.message)
    broken = {problem.path for problem in wrong}
    yield from _advised(environment, broken)
    told = broken | {advice.variable for advice in ADVICE}
    for variable in VARIABLES:
        if variable.name in environment and variable.name not in told:
            yield Check(variable.name, OK, environment[variable.name])
    for problem in refused(environment):
        yield Check(problem.path, BROKEN, problem.message)
    for name, why in USELESS.items():
        if name in environment:
            yield Check(name, WARNING, f"is set: {why}", "unset it")
    yield from _misspelt(environment)


def _advised(environment: Mapping[str, str], broken: Iterable[str]) -> Iterator[Check]:
    for advice in ADVICE:
        if advice.variable in broken:
            continue
        here = environment.get(advice.variable)
        detail = f"{here or f'unset ({advice.unset})'}; MindSpeed-MM's scripts: {advice.mindspeed}"
        ours = advice.advised or "unset"
        remedy = "" if here == advice.advised else f"advised: {ours}; {advice.why}"
        yield Check(advice.variable, OK, detail, remedy)


def _misspelt(environment: Mapping[str, str]) -> Iterator[Check]:
    """Names so near to a known one that nothing reads them."""
    known = {*RECORDED, *USELESS}
    for name in sorted(environment.keys() - known):
        near = [one for one in nearest(name, known) if _differs_in_spelling(name, one)]
        if near and _OURS.match(name):
            yield Check(name, WARNING, "is no variable that is known here", f"did you mean {near[0]}?")


def _differs_in_spelling(name: str, known: str) -> bool:
    """Whether each word is near its counterpart: ASCEND_AICPU_PATH is no misspelt ASCEND_OPP_PATH."""
    words = zip_longest(name.split("_"), known.split("_"), fillvalue="")
    return all(nearest(word, [other]) for word, other in words)


def run_checks(spec: RootSpec, environment: Mapping[str, str]) -> Iterator[Check]:
    """A run's own variables beside the shell's, and whether its ranks wait longer than HCCL."""
    asked = variables_of(spec)
    label = f"{spec.name} on an NPU".strip()
    if isinstance(spec, (TrainSpec, InferSpec)) and spec.runtime.device not in ("auto", "npu"):
        detail = f"runs on {spec.runtime.device}, where it exports nothing"
        yield Check(label, WARNING, detail, "--spec.runtime.device npu")
        return
    if problems := list(conflicts(asked, environment)):
        for problem in problems:
            yield Check(label, BROKEN, str(problem))
    elif asked:
        yield Check(label, OK, f"exports {', '.join(f'{name}={text}' for name, text in asked.items())}")
    else:
        remedy = 'replace(SPEC, "runtime.npu", mm_config.npu.ADVISED) is a start'
        yield Check(label, OK, "exports nothing", remedy)
    if isinstance(spec, (TrainSpec, InferSpec)):
        name, seconds = group_timeout(spec.runtime)
        longest = max(hccl_seconds(read({**environment, **asked})[0]))
        if seconds <= longest:
            yield Check(
                f"spec.runtime.{name}",
                WARNING,
                f"is {seconds} s, and HCCL waits {longest} s: a rank is ended before HCCL can say whom it "
                "waited for",
                f"raise it above {longest} s, or lower HCCL_EXEC_TIMEOUT and HCCL_EVENT_TIMEOUT",
            )
