"""`mm doctor --device npu`: versions that go together, the environment, and a run's variables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from experiments import tiny_high
from mm_config import replace
from mm_config.cli.app import app
from mm_config.doctor.checks import BROKEN, OK, WARNING, Check
from mm_config.doctor.npu import cann_checks, run_checks, torch_checks, variable_checks
from mm_config.npu.advice import ADVISED
from mm_config.npu.variables import RECORDED
from mm_config.npu.versions import PAIRINGS, cann_of, cann_version, torch_npu_for
from mm_config.specs.npu import NpuSpec


def installed(site: Path, package: str, release: str, cuda: str | None = None) -> None:
    """Installs a distribution's metadata as installers do, and torch's file of its build."""
    folder = site / f"{package}-{release}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {release}\n")
    if package == "torch":
        (site / "torch").mkdir()
        (site / "torch" / "version.py").write_text(
            f"__version__ = {release!r}\ndebug = False\ncuda: Optional[str] = {cuda!r}\n"
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages before all others."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def cann(tmp_path: Path) -> Path:
    """An installed CANN."""
    folder = tmp_path / "Ascend" / "cann-9.1.0"
    for part in ("runtime", "compiler", "opp"):
        (folder / part).mkdir(parents=True)
    return folder


def sourced(folder: Path) -> dict[str, str]:
    """What CANN's set_env.sh sets."""
    return {"ASCEND_HOME_PATH": str(folder), "ASCEND_OPP_PATH": str(folder / "opp")}


@pytest.mark.parametrize(
    ("file", "text", "version"),
    [
        (
            "aarch64-linux/ascend_toolkit_install.info",
            "package_name=Ascend-cann-toolkit\nversion=8.5.0\ninnerversion=V100R001C23B001\narch=aarch64\n",
            "8.5.0",
        ),
        ("version.cfg", "# version: 1.0\nruntime_running_version=[7.6.0.1.220:8.3.RC1]\n", "8.3.RC1"),
        ("runtime/version.info", "Version=7.6.0.1.220:8.2.RC1\nversion_dir=8.2.RC1\n", "8.2.RC1"),
        # A component's own number is no release of CANN; the folder's name is.
        ("runtime/version.info", "Version=7.6.0.1.220\n", "9.1.0"),
        ("runtime/nothing", "", "9.1.0"),
    ],
)
def test_the_version_of_cann_is_found_in_its_files(cann: Path, file: str, text: str, version: str) -> None:
    (cann / file).parent.mkdir(exist_ok=True)
    (cann / file).write_text(text)
    assert cann_version(cann) == version
    (found,) = cann_checks(sourced(cann))
    assert found == Check("CANN", OK, f"{version} in {cann}")


def test_a_cann_that_torch_npu_would_refuse_is_broken(cann: Path) -> None:
    (unset,) = cann_checks({})
    assert (unset.status, unset.detail) == (BROKEN, "is not set up: ASCEND_HOME_PATH is unset")
    assert "set_env.sh" in unset.remedy
    (no_operators,) = cann_checks({"ASCEND_HOME_PATH": str(cann)})
    assert no_operators.detail == "ASCEND_OPP_PATH is unset, and torch_npu refuses that"
    (cann / "compiler").rmdir()
    (gone,) = cann_checks(sourced(cann))
    assert gone.status is BROKEN
    assert gone.detail.startswith(f"{cann / 'compiler'} does not exist")


def test_a_cann_that_does_not_say_its_version_is_a_warning(cann: Path) -> None:
    nameless = cann.rename(cann.with_name("latest"))
    (found,) = cann_checks(sourced(nameless))
    assert found.status is WARNING
    assert cann_version(nameless) is None


def test_documented_versions_go_together(site: Path) -> None:
    installed(site, "torch", "2.10.0+cpu")
    installed(site, "torch_npu", "2.10.0.post4")
    assert list(torch_checks("9.1.0")) == [
        Check("torch_npu", OK, "2.10.0.post4 with CANN 9.1.0, as documented")
    ]
    (wrong,) = torch_checks("8.5.0")
    assert wrong.status is BROKEN
    assert "2.10.0.post4 is documented for CANN 9.1.0, not 8.5.0" in wrong.detail
    assert wrong.remedy.startswith("install CANN 9.1.0, or torch_npu==")
    (unknown,) = torch_checks(None)
    assert unknown.status is WARNING


def test_versions_that_nobody_documents_are_a_warning(site: Path) -> None:
    installed(site, "torch", "2.13.0")
    installed(site, "torch_npu", "2.13.0")
    (found,) = torch_checks("9.1.0")
    assert found.status is WARNING
    assert found.detail == "2.13.0: no CANN is documented for it"
    assert "2.12.0 with CANN 9.1.0" in found.remedy


def test_a_torch_npu_of_another_torch_is_broken_and_the_right_one_is_named(site: Path) -> None:
    installed(site, "torch", "2.9.0")
    installed(site, "torch_npu", "2.12.0")
    (found,) = torch_checks("9.0.0")
    assert found == Check(
        "torch_npu", BROKEN, "2.12.0 is not for torch 2.9.0", 'pip install "torch_npu==2.9.0.post2"'
    )


def test_the_torch_npu_to_install_is_that_of_the_torch_and_the_cann_at_hand() -> None:
    assert torch_npu_for("2.9.0+cpu", "8.5.0") == "torch_npu==2.9.0"
    assert torch_npu_for("2.9.0", None) == "torch_npu==2.9.0.post6"
    assert torch_npu_for("2.13.0", "9.1.0") == "torch_npu==2.13.0.*"
    assert all(cann_of(pairing.torch_npu) == pairing.cann for pairing in PAIRINGS)


def test_a_torch_for_cuda_is_broken_as_runs_refuse_it(site: Path) -> None:
    installed(site, "torch", "2.12.0", cuda="12.6")
    installed(site, "torch_npu", "2.12.0")
    _, found = torch_checks("9.1.0")
    assert found.status is BROKEN
    assert found.detail == "2.12.0 is built for CUDA 12.6, and runs refuse torch_npu beside it"
    assert "CPU build" in found.remedy


def test_values_that_the_libraries_take_in_silence_are_broken_here() -> None:
    wrong = {
        "CPU_AFFINITY_CONF": "9",
        "MULTI_STREAM_MEMORY_REUSE": "7",
        "COMBINED_ENABLE": "2",
        "HCCL_CONNECT_TIMEOUT": "abc",
        "INF_NAN_MODE_ENABLE": "0",
        "TORCH_TRANSFER_TO_NPU": "true",
        "TASK_QUEUE_ENABLE": "2",
        "ASCEND_LAUNCH_BLOCKING": "1",
    }
    found = {check.name for check in variable_checks(wrong) if check.status is BROKEN}
    assert found == wrong.keys() - {"ASCEND_LAUNCH_BLOCKING"}


def test_both_names_of_the_allocator_s_variable_are_broken() -> None:
    both = {"PYTORCH_NPU_ALLOC_CONF": "page_size:1g", "PYTORCH_ALLOC_CONF": "page_size:1g"}
    broken = [check for check in variable_checks(both) if check.status is BROKEN]
    assert len(broken) == 1
    assert "refuses" in broken[0].detail


def test_what_does_nothing_and_what_is_misspelt_are_warnings() -> None:
    others = dict.fromkeys(("HCCL_SOCKET_IFNAME", "HCCL_RDMA_TIMEOUT", "ASCEND_AICPU_PATH"), "of CANN's own")
    named = {"CUDA_DEVICE_MAX_CONNECTIONS": "1", "HCCL_EXEC_TIMOUT": "600", **others}
    warned = {check.name: check for check in variable_checks(named) if check.status is WARNING}
    assert warned.keys() == {"CUDA_DEVICE_MAX_CONNECTIONS", "HCCL_EXEC_TIMOUT"}
    assert warned["HCCL_EXEC_TIMOUT"].remedy == "did you mean HCCL_EXEC_TIMEOUT?"


def test_what_mindspeed_s_scripts_set_stands_beside_what_is_advised() -> None:
    told = {check.name: check for check in variable_checks({"CPU_AFFINITY_CONF": "2"})}
    assert told["CPU_AFFINITY_CONF"] == Check("CPU_AFFINITY_CONF", OK, "2; MindSpeed-MM's scripts: 1")
    connecting = told["HCCL_CONNECT_TIMEOUT"]
    assert connecting.detail == "unset (120 s); MindSpeed-MM's scripts: 1200"
    assert connecting.remedy.startswith("advised: 1200; ranks that load weights are late")
    assert told["TASK_QUEUE_ENABLE"].remedy == ""


def test_a_run_s_variables_are_held_against_the_shell_s() -> None:
    spec = replace(tiny_high.SPEC, {"runtime.npu": ADVISED, "runtime.timeout_minutes": 40})
    (exports,) = run_checks(spec, {})
    assert exports.status is OK
    assert "HCCL_CONNECT_TIMEOUT=1200" in exports.detail
    (conflict,) = run_checks(spec, {"HCCL_CONNECT_TIMEOUT": "600"})
    assert conflict.status is BROKEN
    assert "the shell has HCCL_CONNECT_TIMEOUT=600" in conflict.detail


def test_a_run_that_is_not_for_an_npu_is_told_so() -> None:
    spec = replace(tiny_high.SPEC, {"runtime.npu": ADVISED, "runtime.device": "cpu"})
    (found,) = run_checks(spec, {"HCCL_CONNECT_TIMEOUT": "600"})
    assert (found.status, found.detail) == (WARNING, "runs on cpu, where it exports nothing")
    assert found.remedy == "--spec.runtime.device npu"


def test_ranks_that_give_up_before_hccl_does_are_a_warning() -> None:
    _, waits = run_checks(tiny_high.SPEC, {})
    assert (waits.name, waits.status) == ("spec.runtime.timeout_minutes", WARNING)
    assert "is 1800 s, and HCCL waits 1868 s" in waits.detail
    short = NpuSpec(hccl_exec_timeout=600, hccl_event_timeout=700)
    assert len(list(run_checks(replace(tiny_high.SPEC, "runtime.npu", short), {}))) == 1


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in RECORDED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("no_variables")
def test_doctor_without_an_npu_says_what_is_missing_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = str(tmp_path / "runs")
    assert app(["doctor", "--device", "npu", "--json", "--runs-dir", runs, "experiments/tiny_high.py"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["works"] is False
    found = {check["name"]: check for check in report["checks"]}
    assert found["CANN"]["status"] == "broken"
    assert re.fullmatch(r'pip install "torch_npu==[\d.]+[^"]*"; without.*', found["torch_npu"]["remedy"])
    assert found["tiny_high on an NPU"]["detail"] == "exports nothing"
    assert found["devices"]["status"] == "broken"
    assert found["mm-config"]["status"] == "ok"


@pytest.mark.usefixtures("no_variables")
def test_another_device_can_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["doctor", "--device", "cpu", "--runs-dir", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^ok +devices cpu with \d+ threads?", printed, re.M)
    assert "set_env.sh" not in printed
    assert 'pip install "mm-models[npu]", only after CANN: without it, import torch itself fails' in printed


def test_mistakes_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["doctor", "--device", "npx"]) == 2
    assert app(["doctor", "experiments/tiny_high.py"]) == 2
    assert app(["doctor", "--device", "npu", "experiments/tiny_high.py", "--spec.lrr", "1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "--device: expected one of auto, cpu, cuda, npu, got 'npx'",
        "unexpected argument 'experiments/tiny_high.py'; --device npu takes a target",
        "--spec.lrr: unknown flag; did you mean --spec.lr (--spec.optim.lr)?",
    ]
