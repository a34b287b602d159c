"""Conditions on the fields of stored runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import tiny, tiny_high
from mm_config import replace, spec_hash
from mm_config.cli.app import app
from mm_config.options.run_options import RunOptions
from mm_config.runs.conditions import parse_condition
from mm_config.runs.folder import open_run
from mm_config.runs.index import Index, open_index
from mm_config.schema.decorator import spec
from mm_config.schema.errors import UserError
from mm_config.schema.fields import field
from mm_config.schema.root import RootSpec

each_database = pytest.mark.usefixtures("each_database")
NONE = "no stored run has this field"
ALIASES = {"train": {"lr": "optim.lr", "steps": "schedule.steps"}, "infer": {"steps": "sampler.steps"}}


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trainings and a generation; their labels tell them apart. Nothing in it changes."""
    folder = tmp_path_factory.mktemp("runs")
    slow = {"name": "slow", "optim.lr": 1e-5, "schedule.steps": 100, "seed": 2**63 + 1}
    fast = {"name": "fast", "optim.lr": 1.0, "schedule.steps": 20, "runtime.micro_batch_size": 2}
    for run in (slow, fast, {"name": "middle", "optim.lr": 1e-3, "schedule.steps": 50}):
        open_run(replace(tiny_high.SPEC, run), RunOptions(folder)).finish({})
    made = {
        "name": "made",
        "sampler.steps": 30,
        "samples.prompts": ("a = b", "nul \0"),
        "samples.seeds": (7, 8),
    }
    open_run(replace(tiny.SPEC, made), RunOptions(folder)).finish({})
    return folder


def names(index: Index, *conditions: str) -> set[str]:
    where = [parse_condition(text) for text in conditions]
    return {record.name for record in index.list(where=where, aliases=ALIASES)}


@each_database
def test_conditions_compare_as_numbers_texts_and_lists(runs_dir: Path) -> None:
    index = open_index(runs_dir)
    everything = {"slow", "fast", "middle", "made"}
    for condition, expected in {
        "optim.lr>1e-5": {"fast", "middle"},
        "optim.lr>=1e-5": {"slow", "fast", "middle"},
        "spec.optim.lr < 0.001": {"slow"},
        "optim.lr<=.001": {"slow", "middle"},
        "optim.lr=1": {"fast"},
        "lr=1e-05": {"slow"},
        "lr!=1.0": {"slow", "middle"},
        "steps>=30": {"slow", "middle", "made"},
        "schedule.steps=0x14": {"fast"},
        f"seed={2**63 + 1}": {"slow"},
        f"seed={2**63}": set(),
        "runtime.micro-batch-size=null": {"slow", "middle"},
        "runtime.micro_batch_size!=null": {"fast"},
        "runtime.micro_batch_size=None": {"slow", "middle"},
        "runtime.micro_batch_size!=None": {"fast"},
        "ema=None": {"slow", "fast", "middle"},
        "ema!=None": set(),
        "lora = None": {"slow", "fast", "middle"},
        "optim!=None": {"slow", "fast", "middle"},
        'name="None"': set(),
        "runtime.micro_batch_size<3": {"fast"},
        "runtime.build_missing=false": {"slow", "fast", "middle"},
        "expert=high_noise": {"slow", "fast", "middle"},
        "precision.compute=float32": {"slow", "fast", "middle"},
        "optim=adamw": {"slow", "fast", "middle"},
        "expert~[high": set(),
        "name~s": {"slow", "fast"},
        "name~S": set(),
        "name=fast": {"fast"},
        'name="fast"': {"fast"},
        "name!=fast": everything - {"fast"},
        'samples.prompts~"= b"': {"made"},
        'samples.prompts~"nul \\u0000"': {"made"},
        "samples.prompts.0=a = b": {"made"},
        "samples.seeds=[7, 8]": {"made"},
        "samples.seeds=[8, 7]": set(),
        "samples.seeds.1=8": {"made"},
        f"high_noise.spec~{spec_hash(tiny_high.SPEC)[:8]}": {"made"},
        "low_noise.spec=0123abcd": set(),
    }.items():
        assert names(index, condition) == expected, condition
    assert names(index, "lr>1e-5", "steps<50") == {"fast"}


@each_database
def test_a_field_that_no_run_has_is_an_error_with_the_nearest(runs_dir: Path) -> None:
    index = open_index(runs_dir)
    for condition, told in {
        "optm.lr>1": f"spec.optm.lr: {NONE}; did you mean spec.optim.lr?",
        "weight_decay=1": f"spec.weight_decay: {NONE}; did you mean spec.optim.weight_decay?",
        "optim.betas.2=1": f"spec.optim.betas.2: {NONE}",
        "zzz=1": f"spec.zzz: {NONE}; `mm show RUN --format flat` lists the fields of a run",
    }.items():
        with pytest.raises(UserError) as caught:
            names(index, condition)
        assert str(caught.value).startswith(told), str(caught.value)
    with pytest.raises(UserError) as caught:
        names(index, "optm.lr>1", "lr=fast", "name=fast")
    assert [problem.path for problem in caught.value.problems] == ["spec.optm.lr", "spec.lr"]


@each_database
@pytest.mark.parametrize(
    ("condition", "held", "asked"),
    [
        ("optim.lr=fast", "a number", "a text (=fast)"),
        ("optim.lr~1", "a number", "a text (~1)"),
        ("optim.lr!=true", "a number", "a bool (!=true)"),
        ("expert>1", "a text", 'a number (>1); a text that looks like a number stands in quotes: "1"'),
        ("name=1", "a text", 'a number (=1); a text that looks like a number stands in quotes: "1"'),
        ("samples.seeds=7", "a list", "a number (=7)"),
        ("runtime.build_missing=1", "a bool", "a number (=1)"),
    ],
)
def test_a_value_of_another_kind_is_an_error(runs_dir: Path, condition: str, held: str, asked: str) -> None:
    with pytest.raises(UserError) as caught:
        names(open_index(runs_dir), condition)
    (problem,) = caught.value.problems
    assert condition.startswith(problem.path.removeprefix("spec."))
    assert problem.message.startswith(f"holds {held} such as ")
    assert problem.message.endswith(f", it can't be compared with {asked}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("optim.lr", "'optim.lr': a condition is FIELD, one of = != < <= > >= ~, and a value"),
        (">5", "'>5': a condition is FIELD"),
        ("", "'': a condition is FIELD"),
        ("seed==1", "'seed==1': '==' is none of = != < <= > >= ~, did you mean =?"),
        ("seed=>1", "did you mean >=?"),
        (
            "seed!<1",
            "'!<' is none of = != < <= > >= ~ (a value that begins with such a sign stands in quotes)",
        ),
        ("seed=", "'seed=': a value is missing; null is none, \"\" is an empty text"),
        ("lr<fast", "'lr<fast': < compares numbers, 'fast' is none"),
        ("lr<true", "< compares numbers, 'true' is none"),
        ("ema>=None", "'ema>=None': only = and != ask for None"),
        ("ema<null", "'ema<null': only = and != ask for null"),
        ("name~None", "'name~None': only = and != ask for None; the text is \"None\", in quotes"),
        ("lr=.inf", "'.inf' is no finite number"),
        ("lr=.nan", "'.nan' is no finite number"),
        ("seeds=[1,", "'[1,' is no JSON"),
        ('name="a', "is no JSON"),
    ],
)
def test_a_condition_that_is_none_says_what_one_is(text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_condition(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@spec("test-runs-wired")
class Wired(RootSpec):
    """A field with another name in files, and one that was added later."""

    name: str = field(default="")
    width: int = field(default=1, wire="w")
    height: int = field(default=9, neutral=4)


@each_database
def test_a_field_counts_with_the_value_that_the_loaded_spec_has(tmp_path: Path) -> None:
    run = open_run(Wired(name="wired", width=3), RunOptions(tmp_path))
    file = run.path / "spec.json"
    payload = json.loads(file.read_text())
    assert payload["spec"] == {"name": "wired", "w": 3, "height": 9}
    del payload["spec"]["height"]
    file.write_text(json.dumps(payload))
    index = open_index(tmp_path)
    index.reindex()
    assert names(index, "width=3", "height=4") == {"wired"}
    with pytest.raises(UserError, match=r"spec\.w: no stored run has this field"):
        names(index, "w=3")


def test_where_there_is_no_run_no_field_is_wrong(tmp_path: Path) -> None:
    assert names(open_index(tmp_path), "optm.lr>1") == set()


def mm(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    assert app(("runs", *argv)) == status
    printed = capsys.readouterr()
    assert (printed.out if status == 2 else printed.err) == ""
    return printed.err if status == 2 else printed.out


def test_the_command_line_lists_and_finds_by_conditions(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--runs-dir", str(runs_dir))

    def listed(*argv: str) -> list[str]:
        return [row["name"] for row in json.loads(mm(capsys, *argv, "--json", *place))]

    assert listed("list", "--where", "spec.lr>1e-5") == ["middle", "fast"]
    assert listed("list", "--where", "steps>20", "--where", "name~l") == ["middle", "slow"]
    assert listed("list", "--limit", "2") == ["made", "middle"]
    assert listed("list", "--until", "2001-01-01") == []
    assert listed("list", "--since", "2001-01-01", "--name", "fast") == ["fast"]
    assert listed("find", "fast", "--where", "lr=1") == ["fast"]
    assert json.loads(mm(capsys, "show", "fast", "--where", "lr=1", "--json", *place))["name"] == "fast"
    page = mm(capsys, "list", "--limit", "3", *place).splitlines()
    assert page[0] == "runs: the newest 3 of 4"
    assert len(page) == 1 + 1 + 3
    assert mm(capsys, "list", "--where", "lr>5", *place) == f"no run in {runs_dir} meets this\n"
    told = mm(capsys, "find", "fast", "--where", "lr>5", *place, status=2)
    assert told == f"fast: no run in {runs_dir} has this id, label or hash and meets the conditions\n"


def test_the_command_line_tells_all_mistakes_at_once(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--runs-dir", str(runs_dir))
    flags = ("--since", "soon", "--where", "lr", "--where", "lr=", "--limit", "0", "--lmit", "1")
    assert [
        line.partition(": ")[0] for line in mm(capsys, "list", *flags, *place, status=2).splitlines()
    ] == [
        "--since",
        "--where",
        "--where",
        "--limit",
        "--lmit",
    ]
    told = mm(capsys, "compare", "slow", "--where", "lr=1", *place, status=2)
    first, second = told.splitlines()
    assert first == "--where: is no option of compare"
    assert second.startswith("expected compare RUN RUN ..., got compare slow (usage: mm runs ")
    told = mm(capsys, "list", "--where", "optm.lr>1", *place, status=2)
    assert told == "spec.optm.lr: no stored run has this field; did you mean spec.optim.lr?\n"


def test_the_command_line_makes_the_index_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--runs-dir", str(tmp_path))
    for name in ("kept", "moved"):
        open_run(Wired(name=name), RunOptions(tmp_path)).finish({})
    (tmp_path / "moved").rename(tmp_path / ".moved")
    assert len(json.loads(mm(capsys, "list", "--json", *place))) == 2
    assert mm(capsys, "reindex", *place).splitlines()[-1] == f"indexed 1 run of {tmp_path}"
    assert len(json.loads(mm(capsys, "list", "--json", *place))) == 1
    assert json.loads(mm(capsys, "reindex", "--json", *place)) == {"indexed": 1}
    told = mm(capsys, "reindex", "all", *place, status=2)
    assert told.startswith("expected reindex, got reindex all (usage: ")
