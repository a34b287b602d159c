"""The location table: three sources, one order, and messages that say what to write."""

from pathlib import Path

import pytest

from experiments import tiny_high
from mm_config import replace
from mm_config.options.locations import load_locations, unused_names
from mm_config.schema.errors import UserError
from mm_config.specs.datasets import ManifestSpec


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    (home / ".config" / "mm").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    for name in ("by flag", "by project", "by user"):
        (project / name).mkdir(parents=True)
    return project


def test_a_flag_beats_the_project_which_beats_the_user(project: Path, home: Path) -> None:
    user = "".join(f"{name}: {project}/by user\n" for name in "abc")
    (home / ".config" / "mm" / "locations.yaml").write_text(user)
    (project / "locations.yaml").write_text("a: by project\nb: by project\n")
    below = project / "by flag"
    locations = load_locations([f"a={project}/by flag"], start=below)
    assert locations.resolve("a") == project / "by flag"
    assert locations.resolve("b") == project / "by project"
    assert locations.resolve("c") == project / "by user"


def test_the_home_folder_is_expanded_and_nothing_else(project: Path, home: Path) -> None:
    (home / "$HOME").mkdir()
    (project / "locations.yaml").write_text("a: ~/$HOME\n")
    assert load_locations([], start=project).resolve("a") == home / "$HOME"
    assert load_locations(["a=~/$HOME"], start=project).resolve("a") == home / "$HOME"


def test_a_name_with_slashes_and_a_path_with_equals_signs(project: Path) -> None:
    (project / "a=b").mkdir()
    locations = load_locations([f"Wan-AI/Wan2.2-T2V-A14B={project}/a=b"], start=project)
    assert locations.resolve("Wan-AI/Wan2.2-T2V-A14B") == project / "a=b"


def test_an_unknown_name_says_the_three_ways_to_define_it(project: Path) -> None:
    locations = load_locations([f"wan22={project}"], start=project)
    with pytest.raises(UserError) as caught:
        locations.resolve("wan21")
    message = str(caught.value)
    assert "; did you mean wan22?" in message
    for way in ("--location wan21=PATH", "project's locations.yaml", ".config/mm/locations.yaml"):
        assert way in message


def test_a_path_that_does_not_exist_says_who_defined_it(project: Path) -> None:
    file = project / "locations.yaml"
    file.write_text("a: nowhere\n")
    with pytest.raises(UserError, match="does not exist") as caught:
        load_locations([], start=project).resolve("a")
    assert f"location 'a' is {project}/nowhere by {file}" in str(caught.value)


def test_all_mistakes_are_reported_together(project: Path, home: Path) -> None:
    user, own = home / ".config" / "mm" / "locations.yaml", project / "locations.yaml"
    user.write_text("- a list\n")
    own.write_text("a: 1\nb: fine\nc: [also]\n")
    with pytest.raises(UserError) as caught:
        load_locations(["no equals sign", "=path", "c=one", "c=two"], start=project)
    assert str(caught.value).splitlines() == [
        f"{user}: expected lines `NAME: PATH`, got a list",
        f"{own}: expected `NAME: PATH`, got `a: 1`",
        f"{own}: expected `NAME: PATH`, got `c: ['also']`",
        "--location: expected NAME=PATH, got 'no equals sign'",
        "--location: expected NAME=PATH, got '=path'",
        "--location: 'c' is given twice",
    ]


@pytest.mark.parametrize("text", ["a: [\n", "a: x\na: y\n"])
def test_a_file_that_is_no_yaml_is_one_line_with_its_place(project: Path, text: str) -> None:
    (project / "locations.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_locations([], start=project)
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(f"{project / 'locations.yaml'}: ")


def test_an_empty_file_defines_nothing(project: Path) -> None:
    (project / "locations.yaml").write_text("# nothing yet\n")
    assert load_locations([], start=project).entries == ()


def test_a_flag_whose_name_the_spec_does_not_have_is_refused(tmp_path: Path) -> None:
    spec = replace(tiny_high.SPEC, "data.dataset", ManifestSpec(name="my-clips"))
    flags = [f"my-clips={tmp_path}", f"my-clps={tmp_path}"]
    assert [str(problem) for problem in unused_names(load_locations(flags, tmp_path), spec)] == [
        "--location: the spec names nothing 'my-clps'; did you mean my-clips?"
    ]
