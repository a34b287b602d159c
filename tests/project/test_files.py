"""The files at the top of the repository say what holds, and the commands that they name run."""

from __future__ import annotations

import configparser
import fnmatch
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from mm_config.cli.verb import verbs

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
BUG_FORM = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text("utf-8"))
UGLY = "import os\nimport sys\nx = {'a':sys.argv}\n"


def test_the_workflow_runs_the_check_on_every_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"] == {"python": ["3.11", "3.12", "3.13"]}
    (step,) = [step for step in job["steps"] if "run" in step]
    assert os.access(ROOT / step["run"], os.X_OK)
    assert step["run"] == ".ci/run"
    assert "${PYTHON:-" in (ROOT / step["run"]).read_text("utf-8") and step["env"] == {"PYTHON": "python"}
    (chosen,) = [step["with"]["python-version"] for step in job["steps"] if "with" in step]
    assert chosen == "${{ matrix.python }}"


def hooks() -> dict[str, dict[str, Any]]:
    (repository,) = HOOKS["repos"]
    assert repository["repo"] == "local"
    return {hook["id"]: hook for hook in repository["hooks"]}


def run_hook(name: str, folder: Path, *files: str) -> subprocess.CompletedProcess[str]:
    program, *words = shlex.split(hooks()[name]["entry"])
    # What make setup installs as .venv/bin/NAME is this environment's NAME.
    command = [str(Path(sys.executable).parent / Path(program).name), *words, *files]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_hooks_are_of_the_environment_that_make_sets_up() -> None:
    for hook in hooks().values():
        assert hook["language"] == "system" and hook["entry"].startswith(".venv/bin/")


def test_hooks_pass_on_the_sources() -> None:
    for name, hook in hooks().items():
        files = () if hook.get("pass_filenames") is False else ("experiments/tiny.py",)
        done = run_hook(name, ROOT, *files)
        assert done.returncode == 0, done.stdout + done.stderr


def test_hooks_refuse_or_mend_what_is_not_in_style(tmp_path: Path) -> None:
    ugly = tmp_path / "ugly.py"
    ugly.write_text(UGLY)
    assert run_hook("ruff", tmp_path, "ugly.py").returncode == 1
    assert run_hook("ruff-format", tmp_path, "ugly.py").returncode == 0
    assert ugly.read_text() != UGLY


def test_the_bug_form_asks_for_the_machine_and_the_spec() -> None:
    fields = {one["id"]: one for one in BUG_FORM["body"] if "id" in one}
    required = {name for name, one in fields.items() if one.get("validations", {}).get("required")}
    assert required == {"happened", "doctor", "spec-hash"}
    assert "mm doctor" in fields["doctor"]["attributes"]["label"]
    assert "mm hash" in fields["spec-hash"]["attributes"]["description"]
    named = set(re.findall(r"`mm (\w+)", str(BUG_FORM)))
    assert named <= set(verbs()) and {"doctor", "hash", "show"} <= named


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    assert cited["authors"] == PROJECT["authors"]


def sections() -> dict[str, dict[str, str]]:
    """The sections of .editorconfig by their patterns, in order."""
    text = (ROOT / ".editorconfig").read_text("utf-8")
    parsed = configparser.ConfigParser()
    parsed.read_string(f"[top]\n{text}")
    return {name: dict(parsed[name]) for name in parsed.sections() if name != "top"}


def settings(path: str) -> dict[str, str]:
    """What .editorconfig says of a file."""
    found: dict[str, str] = {}
    for pattern, values in sections().items():
        if any(fnmatch.fnmatch(Path(path).name, one) for one in alternatives(pattern)):
            found |= values
    return found


def alternatives(pattern: str) -> list[str]:
    before, _, rest = pattern.partition("{")
    inside, _, after = rest.partition("}")
    return [f"{before}{one}{after}" for one in inside.split(",")] if rest else [pattern]


def tracked() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is no git checkout")
    return done.stdout.splitlines()


def test_every_file_is_as_editors_are_told_to_write_it() -> None:
    wrong: list[str] = []
    for name in tracked():
        path = ROOT / name
        if path.suffix == ".png" or not path.is_file():
            continue
        content, told = path.read_bytes().decode("utf-8"), settings(name)
        if told["insert_final_newline"] == "true" and content and not content.endswith("\n"):
            wrong.append(f"{name}: no newline at the end")
        if told["trim_trailing_whitespace"] == "true" and re.search(r"[ \t]$", content, re.MULTILINE):
            wrong.append(f"{name}: blanks at the end of a line")
        if told["end_of_line"] == "lf" and "\r" in content:
            wrong.append(f"{name}: carriage returns")
        if told["indent_style"] == "space" and re.search(r"^ *\t", content, re.MULTILINE):
            wrong.append(f"{name}: indented by tabs")
        if re.search(r"^(<<<<<<<|>>>>>>>) ", content, re.MULTILINE):
            wrong.append(f"{name}: an unresolved merge")
    assert not wrong, "\n".join(wrong)


def test_make_has_a_line_of_help_for_every_target() -> None:
    command = ["make", "--no-print-directory", "help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert listed == set(phony.split())
    assert {"goldens", "format"} <= listed


def test_goldens_are_written_by_the_tests_that_compare_with_them() -> None:
    files = ["tests/mm_config/test_golden.py", "tests/project/test_changelog.py"]
    command = [sys.executable, "-m", "pytest", "--update", "--collect-only", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^tests/\S+::(\w+)$", done.stdout, re.MULTILINE) == [
        "test_hashes_of_the_experiments_are_the_golden_ones",
        "test_fields_added_after_a_class_was_born_have_a_neutral_value",
        "test_the_newest_version_lists_what_came_after_the_births",
    ]
    recipe = (ROOT / "Makefile").read_text("utf-8").partition("\ngoldens:")[2].splitlines()[1]
    assert recipe == "\t$(BIN)/python -m pytest --update"
