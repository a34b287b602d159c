"""Launch scripts: what is read out of them, with which lines, and what is refused; nothing is ever run."""

from pathlib import Path

import pytest

from mm_config.importing.facts import Fact
from mm_config.importing.parsers.script import Script
from mm_config.importing.parsers.shell_text import read_shell
from mm_config.schema.errors import UserError


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "pretrain.sh"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def problems(file: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_shell(file)
    return [str(problem).replace(str(file), "F") for problem in caught.value.problems]


def values(facts: tuple[Fact, ...]) -> dict[str, object]:
    return {fact.path: fact.value for fact in facts}


def notes(script: Script) -> list[str]:
    return [f"{note.line}: {note.text}" for note in script.notes]


def test_the_part_that_measures_speed_after_the_launch_is_read_over(tmp_path: Path) -> None:
    text = r"""torchrun pretrain_sora.py --seed 1
GBS=8
chmod 440 logs/train_${logfile}.log
find $SAVE_PATH -type d -exec chmod 750 {} \;
STEP_TIME=`grep "per iteration" logs/x.log | awk -F '|' '{print$1}' | awk '{s+=$1} END {printf("%.1f",s/NR)}'`
SPS=`awk 'BEGIN{printf "%.3f\n", '${GBS}'*1000/'${STEP_TIME}'}'`
echo "Elapsed Time Per iteration: $STEP_TIME" > log
"""
    script = read_shell(written(tmp_path, text))
    assert script.opaque == {"STEP_TIME", "SPS"}
    assert [note.line for note in script.notes] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("line", "argument"),
    [
        ("A=1; torchrun", None),
        ("A=x torchrun t.py --a $A", None),
        ("A='$B \"x\"'", '$B "x"'),
        ('A="\\$B \\"x\\" \\a"', '$B "x" \\a'),
        ("A=a\"b c\"'d e'f", "ab cd ef"),
        ("A=a\\ b", "a b"),
        ("B=1\nA=${B}2", "12"),
        ("A=${B:-x y}", "x y"),
        ('B=""\nA=${B:-x}', "x"),
        ('B=""\nA=${B-x}', ""),
        ("A=1\nA+=2", "12"),
        ("A=x#y # z", "x#y"),
        ("A=$", "$"),
        ("A=a=b", "a=b"),
        ("A=", ""),
        ('A="a\\\n b"', "a b"),
        ('A="a\n b"', "a\n b"),
    ],
)
def test_assignments_are_expanded_as_bash_does(line: str, argument: str | None, tmp_path: Path) -> None:
    file = written(tmp_path, f"{line}\n")
    if argument is None:
        assert problems(file)
    else:
        assert values(read_shell(file).assignments)["A"] == argument


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1+2*3", "7"),
        ("(1+2)*3", "9"),
        ("-7/2", "-3"),
        ("7%-2", "1"),
        ("-7%2", "-1"),
        ("- -3", "3"),
        ("$N*N*${N}", "512"),
        ("10/3*3", "9"),
        ("$((N/2))+1", "5"),
        ("-9223372036854775807", "-9223372036854775807"),
        ("${M:-4}*2", "8"),
    ],
)
def test_arithmetic_is_bash_s(expression: str, value: str, tmp_path: Path) -> None:
    script = read_shell(written(tmp_path, f"N=8\nA=$(({expression}))\n"))
    assert values(script.assignments)["A"] == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1/0", "the arithmetic divides by zero"),
        ("1%0", "the arithmetic divides by zero"),
        ("$T*2", "abc is no number and no variable with a known value"),
        ("M+1", "M is no number and no variable with a known value"),
        ("1.5*2", "arithmetic knows numbers, names, + - * / % and parentheses, got .5*2"),
        ("2**3", "the arithmetic can't go on with **"),
        ("1<<3", "arithmetic knows numbers, names, + - * / % and parentheses, got <<3"),
        ("010", "bash reads 010 as octal; write it without the leading zero"),
        ("0x10", "arithmetic needs whole numbers, got 0x10"),
        ("$P 1", "the arithmetic lacks a closing parenthesis"),
        ("1+", "the arithmetic lacks a number at its end"),
        ("", "empty arithmetic"),
        ("1 2", "the arithmetic can't go on with 2"),
        ("9223372036854775807+1", "the arithmetic does not fit into the 64 bits of bash's numbers"),
        ("9" * 5000, "does not fit into the 64 bits of bash's numbers"),
        ("(" * 90 + "1" + ")" * 90, "the arithmetic is nested deeper than 64 levels"),
        ("-" * 5000 + "1", "the arithmetic is nested deeper than 64 levels"),
    ],
)
def test_arithmetic_that_is_none_is_refused(expression: str, message: str, tmp_path: Path) -> None:
    found = problems(written(tmp_path, f"T=abc P='('\nA=$(({expression}))\n"))
    assert found[0].startswith("F:2: A: $((") or "(((" in expression
    assert message in found[0]


def test_a_dropped_remainder_is_noted(tmp_path: Path) -> None:
    script = read_shell(written(tmp_path, "N=8\nDP=$(($N/3))\n"))
    assert notes(script) == ["2: DP: $((8/3)) leaves a remainder, which bash drops: 2"]


MARKED = """N=8
{}
torchrun pretrain.py --num-layers $N {}
"""


@pytest.mark.parametrize(
    ("line", "argument", "expected"),
    [
        ("X=$(rm -rf {marker})", "", "F:2: X: $(rm -rf"),
        ("X=`touch {marker}`", "", "F:2: X: `touch"),
        ("X=$(date; touch {marker})", "", "F:2: X: $(date; touch"),
        ("X=$(date > {marker})", "", "F:2: X: $(date >"),
        ("X=$(echo $(touch {marker}))", "", "F:2: X: $(touch"),
        ("X=${{A:-$(touch {marker})}}", "", "F:2: X: $(touch"),
        ("X=$(($(touch {marker})+1))", "", "F:2: X: $(touch"),
        ("X=1 && touch {marker}", "", "F:2: && after an assignment is not read here"),
        ("X=1; touch {marker}", "", "F:2: ; after an assignment is not read here"),
        ("X=1 | tee {marker}", "", "F:2: | after an assignment is not read here"),
        ("X=1 > {marker}", "", "F:2: > after an assignment is not read here"),
        ("export X=1; touch {marker}", "", "F:2: ; after an export is not read here"),
        ("source set_env.sh && touch {marker}", "", "F:2: && after a source command is not read here"),
        ("source $(touch {marker})", "", "F:2: $(touch"),
        ("eval touch {marker}", "", "F:2: eval is no command that is read here"),
        ("touch {marker}", "", "F:2: touch is no command that is read here"),
        ("mkdir -p logs; touch {marker}", "", "F:2: a command with ; after mkdir is not read here"),
        ("mkdir -p $(touch {marker})", "", "F:2: $(touch"),
        ("echo x | touch {marker}", "", "F:2: touch after echo is not read here"),
        ("(touch {marker})", "", "F:2: a function, an array or a subshell is not read here"),
        ("f() {{ touch {marker}; }}", "", "F:2: a function, an array or a subshell is not read here"),
        ("if true; then touch {marker}; fi", "", "F:2: `if` is not read here"),
        ("X=(1 2)", "", "F:2: an array is not read here"),
        ("cat <<EOF", "", "F:2: a here-document is not read here"),
        ("", "--x $(touch {marker})", "F:3: --x: $(touch"),
        ("", "--x `touch {marker}`", "F:3: --x: `touch"),
        ("", "--x $(date)", "F:3: --x: the argument $(date) can't be known"),
        ("X=$(date)", "--x $X", "F:2: --x: the argument $(date) can't be known"),
        ("X=$(date)", "--x $X.log", "F:2: --x: the argument $(date).log can't be known"),
        ("", "--x $HOME", "F:3: --x: the argument $HOME can't be known: the script inherits $HOME"),
        ("", "; touch {marker}", "F:3: a command with ; after the launch is not read here"),
        ("", "&& touch {marker}", "F:3: a command with && after the launch is not read here"),
        ("", "| touch {marker}", "F:3: touch after the launch is not read here"),
        ("", "| tee $(touch {marker})", "F:3: $(touch"),
        ("", "> {marker} --x 1", "F:3: a redirection stands before the argument --x"),
        ("", "< {marker}", "F:3: a command with < after the launch is not read here"),
        ("", "--x [a]", "F:3: --x: bash replaces [ in the argument [a]"),
        ("", "--x a_{{q,k}}", "F:3: --x: bash replaces {{q,k}} in the argument"),
        ("", "--x ~/a", "F:3: --x: bash replaces ~ in the argument ~/a"),
        ("X='--a 1 # --b 2'", "$X", "F:2: --a: inside quotes # begins no comment"),
        ("", "\ntorchrun other.py", "F:4: a second launch; the first is on line 3"),
    ],
)
def test_what_would_run_something_is_reported_and_nothing_runs(
    line: str, argument: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    marker = Path("marker")
    text = MARKED.format(line.format(marker=marker), argument.format(marker=marker))
    found = problems(written(tmp_path, text))
    assert any(problem.startswith(expected.format()) for problem in found), found
    assert not marker.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pretrain.sh"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=$B\n", "F:1: A: $B is not set above; set it in the script, or give ${B:-default}"),
        ("A=\\\n$B\n", "F:2: A: $B is not set above; set it in the script, or give ${B:-default}"),
        ("A=$1\n", "F:1: A: $1 is known only when the script runs; write its value"),
        ("A='x\n\n", "F:1: the single quote that opens here is never closed"),
        ('\nA="x\n\n', "F:2: the double quote that opens here is never closed"),
        ("A=${B\n", "F:1: the { that opens here is never closed"),
        ("A=`date\n", "F:1: the ` that opens here is never closed"),
        ("A=$(date\n", "F:1: the ( that opens here is never closed"),
        ("B=1\nA=${B##*/}\n", "F:2: A: ${B##*/} is not read here; $A, ${A}, ${A:-default} and $((...)) are"),
        ("A=$'x'\n", "F:1: A: $' is not read here; $A, ${A}, ${A:-default} and $((...)) are"),
        ("A=~/x\n", "F:1: A: ~ depends on who runs the script; write out the folder"),
        ("export A\n", "F:1: export A: A is not set above"),
        ("export -n A\n", "F:1: export -n is not read here; A or A=b is"),
        ("torchrun --nnodes 1\n", "F:1: torchrun launches neither a .py file nor a module (-m)"),
        ("torchrun t.py x --lr 1\n", "F:1: the argument x belongs to no flag"),
        ("$(touch x) t.py\n", "F:1: $(touch x) would run touch; nothing was run; write the value itself"),
    ],
)
def test_what_is_outside_the_subset_is_refused_with_its_line(
    text: str, expected: str, tmp_path: Path
) -> None:
    assert problems(written(tmp_path, text))[0] == expected


def test_a_mistake_is_reported_once_and_not_again_where_its_variable_is_used(tmp_path: Path) -> None:
    text = "A=$NOPE\nB=$(($A*2))\nC=$B\ntorchrun t.py --lr $C\n"
    assert [problem[:4] for problem in problems(written(tmp_path, text))] == ["F:1:"]


def test_variables_that_double_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    doubled = 'A="$A\n$A"\n' * 200
    found = problems(written(tmp_path, f"A=x\n{doubled}"))
    assert found[0].endswith("the variables come to more than 256 KiB of text")
    empty = 'A="$A$A"\n' * 200
    assert len(read_shell(written(tmp_path, f"A=\n{empty}")).assignments) == 201


@pytest.mark.parametrize("opening", ["$(", "${A:-", "$((", '"$(', "$(($("])
def test_deep_nesting_is_refused(opening: str, tmp_path: Path) -> None:
    closing = {"$(": ")", "${A:-": "}", "$((": "))", '"$(': ')"', "$(($(": ")))"}[opening]
    text = "A=" + opening * 2_000 + "1" + closing * 2_000
    found = problems(written(tmp_path, text))
    assert found and all(problem.startswith("F:1: ") for problem in found)


def test_a_byte_order_mark_and_crlf_are_read_and_noted(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbfA="--lr 1 \\\r\n  --b"\r\ntorchrun t.py $A\r\n'
    script = read_shell(written(tmp_path, text))
    assert [(fact.path, fact.value, fact.line) for fact in script.launch] == [
        ("--lr", "1", 1),
        ("--b", True, 2),
    ]
    assert notes(script) == [
        "1: begins with a byte order mark, which bash would take for a part of the first command",
        "1: lines end in CRLF, which bash would stumble over; they were read as LF",
    ]


def test_other_launchers_and_forms_of_flags_are_read(tmp_path: Path) -> None:
    for command, program, entry in [
        (
            "python -m torch.distributed.run --nnodes 1 train.py",
            "python -m torch.distributed.run",
            "train.py",
        ),
        ("python3 train.py", "python3", "train.py"),
        ("torchrun --nnodes 1 -m mm.train", "torchrun", "mm.train"),
        ("nohup /usr/bin/torchrun train.py", "/usr/bin/torchrun", "train.py"),
        ("accelerate launch --config_file a.yaml train.py", "accelerate launch", "train.py"),
    ]:
        script = read_shell(written(tmp_path, f"{command} --a=b --c -1e-5 --d x 'y z' &\n"))
        assert (script.program, script.entry) == (program, entry)
        flags = values(script.launch)
        assert [flags[flag] for flag in ("--a", "--c", "--d")] == ["b", "-1e-5", ("x", "y z")]


def test_a_variable_before_the_command_is_an_export(tmp_path: Path) -> None:
    script = read_shell(written(tmp_path, "X=1 Y=2 torchrun t.py --lr 1 > log 2>&1\n"))
    assert values(script.exports) == {"X": "1", "Y": "2"} and script.assignments == ()


def test_an_exported_variable_that_is_set_again_stays_exported(tmp_path: Path) -> None:
    script = read_shell(written(tmp_path, "X=1\nexport X\nX=2\n"))
    assert [(fact.value, fact.line) for fact in script.exports] == [("1", 2), ("2", 3)]
    assert [(fact.value, fact.line) for fact in script.assignments] == [("1", 1)]


def test_a_script_without_a_launch_and_an_empty_one_say_so(tmp_path: Path) -> None:
    script = read_shell(written(tmp_path, "A=1\n# torchrun t.py\n"))
    assert (script.program, script.entry, script.launch) == (None, None, ())
    assert read_shell(written(tmp_path, "")) == Script((), (), frozenset(), (), None, None, ())


def test_files_that_can_t_be_read_are_refused_in_one_line(tmp_path: Path) -> None:
    assert problems(tmp_path / "missing.sh") == ["F: can't be read: No such file or directory"]
    assert problems(tmp_path) == ["F: is a directory"]
    assert problems(written(tmp_path, b"#" * (2**20 + 1))) == [
        "F: is larger than 1 MiB, the most that is read"
    ]
    assert problems(written(tmp_path, b"A=1\nB=\xff\n")) == ["F:2: is no UTF-8 text"]
    assert problems(written(tmp_path, b"A=1\nB=\0\n")) == ["F:2: holds the control character U+0000"]
