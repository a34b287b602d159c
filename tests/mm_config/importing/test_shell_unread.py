"""What a script holds beside assignments and its launch: told as not read, never run, never misread."""

import random
import re
from pathlib import Path

import pytest

from mm_config.importing.parsers.shell_text import read_shell
from mm_config.schema.errors import UserError
from tests.mm_config.importing.test_shell_scripts import (
    arguments_as_read,
    arguments_by_bash,
    needs_bash,
)
from tests.mm_config.importing.test_shell_text import notes, problems, values, written


def test_the_part_that_measures_speed_after_the_launch_is_told_as_not_read(tmp_path: Path) -> None:
    text = r"""GBS=8
torchrun pretrain_sora.py --seed 1 \
    2>&1 | tee logs/train_${logfile}.log
chmod 440 logs/train_${logfile}.log
STEP_TIME=`grep "per iteration" logs/x.log | awk -F '|' '{print$1}' | awk '{s+=$1} END {printf("%.1f",s/NR)}'`
GBS=16
echo "Elapsed Time Per iteration: $STEP_TIME" > log
f() {
"""
    script = read_shell(written(tmp_path, text))
    assert values(script.assignments) == {"GBS": "8"}
    assert notes(script) == [
        "3: 2>&1 | tee logs/train_${logfile}.log: not read, nor is what follows the launch"
    ]
    assert notes(read_shell(written(tmp_path, "torchrun t.py --seed 1  # \n\n# x\n"))) == []


MARKED = """N=8
{}
torchrun pretrain.py --num-layers $N {}
"""


@pytest.mark.parametrize(
    ("line", "argument", "expected"),
    [
        ("X=$(rm -rf {marker})", "", "2: X: $(rm -rf marker) is known only when the script runs"),
        ("X=`touch {marker}`", "", "2: X: `touch marker` is known only when the script runs"),
        ("X=${{A:-$(touch {marker})}}", "", "2: X: ${A:-$(touch marker)} is not read here"),
        ("X=1 && touch {marker}", "", "2: X=1 && touch marker: not read"),
        ("X=1; touch {marker}", "", "2: touch marker: not read"),
        ("X=1 | tee {marker}", "", "2: X=1 | tee marker: not read"),
        ("X=1 > {marker}", "", "2: X=1 > marker: not read"),
        (
            "source set_env.sh && touch {marker}",
            "",
            "2: source set_env.sh && touch marker: not read; what it sets",
        ),
        ("source $(touch {marker})", "", "2: source $(touch marker): not read; what it sets"),
        ("touch {marker}", "", "2: touch marker: not read"),
        ("set -e; ulimit -n 9", "", "2: ulimit -n 9: not read"),
        ("mkdir -p $(touch {marker})", "", "2: mkdir -p $(touch marker): not read"),
        ("(touch {marker})", "", "2: (touch marker): not read"),
        ("f() {{\n touch {marker}\n}}", "", "2: f() {: not read, up to line 4"),
        ("if true; then\n touch {marker}; fi", "", "2: if true; then: not read, up to line 3"),
        (
            "case $N in 8) touch {marker};;\n *) N=2;;\nesac; N=8",
            "",
            "2: case $N in 8) touch marker;;: not read, up",
        ),
        ("for i in 1 2; do touch {marker}; done", "", "2: for i in 1 2; do touch marker; done: not read"),
        (
            "for ((i=0; i<2; i++)); do\n touch {marker}\ndone",
            "",
            "2: for ((i=0; i<2; i++)); do: not read, up to line 4",
        ),
        ("X=(1 2)", "", "2: X=(1 2): not read"),
        ("", "; touch {marker}", "3: touch marker: not read"),
        ("", "&& touch {marker}", "3: && touch marker: not read"),
        ("", "| tee $(touch {marker})", "3: | tee $(touch marker): not read"),
        ("", "< {marker}", "3: < marker: not read"),
        ("", "> log 2>&1 &", "3: > log 2>&1 &: not read"),
    ],
)
def test_what_would_run_something_is_noted_and_nothing_runs(
    line: str, argument: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = MARKED.format(line.format(marker="marker"), argument.format(marker="marker"))
    script = read_shell(written(tmp_path, text))
    assert values(script.launch) == {"--num-layers": "8"}
    assert any(note.startswith(expected) for note in notes(script)), notes(script)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pretrain.sh"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("eval N=2", "F:2: `eval` may set any variable; write out the lines that are to count"),
        ("while true; do\n read N\ndone", "F:3: `read` may set any variable"),
        ("if true; then declare N=2; fi", "F:2: `declare` may set any variable"),
        ("cat <<EOF\nN=2\nEOF", "F:2: a here-document is not read here"),
        ("if true; then\nN=2", "F:2: the if that opens here is never closed"),
    ],
)
def test_what_might_set_anything_is_refused(line: str, expected: str, tmp_path: Path) -> None:
    assert problems(written(tmp_path, MARKED.format(line, "")))[0].startswith(expected)


SETTING = (
    "if true; then N=2; fi",
    "if false; then :; else\n  N=2\nfi",
    "for N in 2 3; do :; done",
    "case x in\n  x) N=2 ;;\nesac",
    "while [ $N = 8 ]; do N=2; done",
    "f() { N=2; }; f",
    "f()\n{\n  N=2\n}\nN=7\nf",
    "function f { export N=2; }\nN=7; f",
    "true && N=2",
    "N=2 > log",
    "N=2 | cat",
    "((N=2))",
    "((N++))",
    "for ((N=0; N<3; N++)); do :; done",
    "N=(2 3)",
    "N[0]=2",
    "E=''; A=${E:=$((N=3))}",
    "A=$((N=2))",
    "A=$((N+=2))",
    "A=$((--N))",
    "N=''; A=${N:=2}",
    "(N=2)",
    "{ N=2; }",
)


@needs_bash
@pytest.mark.parametrize("setting", SETTING)
def test_a_variable_that_is_set_in_what_is_not_read_is_unknown_where_it_is_used(
    setting: str, tmp_path: Path
) -> None:
    file = written(tmp_path, f'N=8\n{setting}\ntorchrun t.py --x "$N"\n')
    message = r"F:\d+: --x: the argument \$N can't be known: line \d+, which is not read, may set N"
    assert re.fullmatch(message, problems(file)[0])
    assert arguments_by_bash(file, tmp_path)[1] == "--x"
    again = written(tmp_path, f"N=8\n{setting}\nN=5\ntorchrun t.py --x $N\n")
    if "f" not in setting.split() and "f()" not in setting and "{ " not in setting:
        assert arguments_as_read(again) == arguments_by_bash(again, tmp_path)[1:] == ["--x", "5"]


@pytest.mark.parametrize("setting", SETTING)
def test_an_exported_variable_that_may_be_set_again_does_not_keep_its_value(
    setting: str, tmp_path: Path
) -> None:
    script = read_shell(written(tmp_path, f"export N=8\n{setting}\ntorchrun t.py --x 1\n"))
    assert values(script.exports)["N"] == "$N"


@needs_bash
@pytest.mark.parametrize("count", [40, pytest.param(1_000, marks=pytest.mark.slow)])
def test_random_scripts_with_what_is_not_read_are_refused_or_say_what_bash_hands_over(
    count: int, tmp_path: Path
) -> None:
    rng = random.Random(count)
    read = 0
    for _ in range(count):
        lines = ["N=8", "M=1", "L=2"]
        for _ in range(rng.randint(1, 4)):
            name = rng.choice("NML")
            setting = re.sub(r"\bN\b", rng.choice("NML"), rng.choice(SETTING))
            lines += rng.choice(
                ([setting], [setting], [f"{name}=$M"], [f"{name}=$((N*2))"], ["mkdir -p logs"])
            )
        flags = " ".join(f'--{name} "${name}"' for name in "NML" if rng.random() < 0.5)
        file = written(tmp_path, "\n".join([*lines, f"torchrun t.py --first 1 {flags} > log 2>&1", ""]))
        try:
            found = arguments_as_read(file)
        except UserError:
            continue
        read += 1
        assert found == arguments_by_bash(file, tmp_path)[1:], file.read_text()
    assert count / 5 < read < count
