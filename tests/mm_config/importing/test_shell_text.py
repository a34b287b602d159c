"""Launch scripts: what is read out of them, with which lines, and what is refused."""

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


@pytest.mark.parametrize(
    ("line", "argument"),
    [
        ("A=1; torchrun", None),
        ("B=1; A=$B", "1"),
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
        ("-7/2", "-3"),
        ("7/-2+2*-3", "-9"),
        ("- -3", "3"),
        ("$N*N*${N}", "512"),
        ("10/3*3", "9"),
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
        ("$T*2", "arithmetic needs whole numbers, got abc"),
        ("M+1", "arithmetic needs whole numbers, got M"),
        ("D+1", "the value of D is not known"),
        ("010", "arithmetic needs whole numbers, got 010"),
        ("0x10", "arithmetic needs whole numbers, got 0x10"),
        *(
            (text, f"arithmetic knows whole numbers, names, + - * and /, got {text}")
            for text in ("7%2", "(1+2)*3", "1.5*2", "2**3", "1<<3", "1+", "1 2", "T++", "T=3")
        ),
        ("", "arithmetic knows whole numbers, names, + - * and /, got ''"),
        ("9223372036854775807+1", "the arithmetic does not fit into the 64 bits of bash's numbers"),
        ("9" * 5000, "arithmetic needs whole numbers, got '9999"),
        ("-" * 5000 + "1", "arithmetic knows whole numbers, names, + - * and /, got '----"),
    ],
)
def test_arithmetic_that_is_not_read_is_told_where_it_is_needed(
    expression: str, message: str, tmp_path: Path
) -> None:
    text = f"T=abc D=$(date)\nA=$(({expression}))\n"
    (note,) = [note for note in notes(read_shell(written(tmp_path, text))) if note.startswith("2: A: ")]
    assert message in note
    found = problems(written(tmp_path, f"{text}torchrun t.py --lr $A\n"))
    assert found[0].startswith("F:2: --lr: the argument ") and message in found[0]


def test_a_dropped_remainder_is_noted(tmp_path: Path) -> None:
    script = read_shell(written(tmp_path, "N=8\nDP=$(($N/3))\n"))
    assert notes(script) == ["2: $((8/3)) leaves a remainder, which bash drops: 2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A='x\n\n", "F:1: the ' that opens here is never closed"),
        ('\nA="x\n\n', 'F:2: the " that opens here is never closed'),
        ("A=${B\n", "F:1: the { that opens here is never closed"),
        ("A=`date\n", "F:1: the ` that opens here is never closed"),
        ("A=$(date\n", "F:1: the ( that opens here is never closed"),
        ("export A\n", "F:1: export A is not read here; A=b is, and an A that is set above"),
        ("export -n A\n", "F:1: export -n is not read here; A=b is, and an A that is set above"),
        ("torchrun --nnodes 1\n", "F:1: torchrun launches neither a .py file nor a module (-m)"),
        ("torchrun t.py x --lr 1\n", "F:1: the argument x belongs to no flag"),
        ("torchrun t.py > log --x 1", "F:1: a redirection stands before the argument --x; put it at the end"),
        ("torchrun t.py --x [a]", "F:1: --x: bash replaces [ in the argument [a]"),
        ("torchrun t.py --x a_{q,k}", "F:1: --x: bash replaces {q,k} in the argument"),
        ("torchrun t.py --x ~/a", "F:1: --x: bash replaces ~ in the argument ~/a"),
        ("X='--a 1 # --b 2'\ntorchrun t.py $X", "F:1: --a: inside quotes # begins no comment"),
        ("torchrun t.py\n\ntorchrun other.py", "F:3: a second launch; the first is on line 1"),
        ("torchrun t.py && A=1 torchrun other.py", "F:1: a second launch; the first is on line 1"),
        ("if true; then\n torchrun t.py\nfi", "F:1: if is not read here, and holds a launch"),
        ("cd x && torchrun t.py", "F:1: cd is not read here, and holds a launch"),
    ],
)
def test_what_can_not_be_read_is_refused_with_its_line(text: str, expected: str, tmp_path: Path) -> None:
    assert problems(written(tmp_path, text))[0].startswith(expected)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("$B", "$B is not set above; set it in the script, or give ${B:-default}"),
        ("$HOME/x", "$HOME is not set above; set it in the script, or give ${HOME:-default}"),
        ("$1", "$1 is known only when the script runs; write its value"),
        ("a$(date)", "$(date) is known only when the script runs"),
        ('"`date`"', "`date` is known only when the script runs"),
        ("${B##*/}", "${B##*/} is not read here; $A, ${A}, ${A:-default} and $((...)) are"),
        ("${B:-$(date)}", "${B:-$(date)} is not read here; $A, ${A}, ${A:-default} and $((...)) are"),
        ("$(($(date)+1))", "$(($(date)+1)) is not read here; $A, ${A}, ${A:-default} and $((...)) are"),
        ("$'a\\'b'", "$'a\\'b' is not read here; $A, ${A}, ${A:-default} and $((...)) are"),
        ("$[1+2]", "$ is not read here; $A, ${A}, ${A:-default} and $((...)) are"),
        ("~/x", "~ depends on who runs the script; write out the folder"),
    ],
)
def test_a_value_that_is_not_known_is_noted_and_refused_where_the_launch_needs_it(
    value: str, why: str, tmp_path: Path
) -> None:
    assert notes(read_shell(written(tmp_path, f"\nA={value}\n"))) == [f"2: A: {why}"]
    assert why in problems(written(tmp_path, f"A={value}\ntorchrun t.py --lr $A"))[0]
    assert why in problems(written(tmp_path, f"torchrun t.py --lr {value}"))[0] or value == "~/x"


def test_the_folder_of_the_program_need_not_be_known(tmp_path: Path) -> None:
    text = "B=$(cd `dirname $0`; cd ../../../; pwd)\ntorchrun --nnodes 1 $B/train.py --lr 1\n"
    script = read_shell(written(tmp_path, text))
    assert script.entry == "train.py" and values(script.launch) == {"--nnodes": "1", "--lr": "1"}
    text = "B=$(pwd)\ntorchrun --nnodes 1 train.py --x $B/other.py\n"
    assert problems(written(tmp_path, text))[0].startswith("F:1: --x: the argument $(pwd)/other.py")


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
def test_deep_nesting_is_not_known(opening: str, tmp_path: Path) -> None:
    closing = {"$(": ")", "${A:-": "}", "$((": "))", '"$(': ')"', "$(($(": ")))"}[opening]
    text = "B=" + opening * 2_000 + "1" + closing * 2_000
    file = written(tmp_path, f"{text}\ntorchrun t.py --x $B\n")
    assert len(problems(file)) == 1 and problems(file)[0].startswith("F:1: ")


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


def test_the_flags_that_a_variable_reaches_are_told(tmp_path: Path) -> None:
    text = 'A=2\nB=$A\nC="--x $A --y 3"\ntorchrun t.py $C --z $B --w "$A$A"\n'
    assert read_shell(written(tmp_path, text)).reached == {"A": ("--x", "--z", "--w")}


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
    assert read_shell(written(tmp_path, "")) == Script((), (), (), {}, None, None, 1, ())


def test_files_that_can_t_be_read_are_refused_in_one_line(tmp_path: Path) -> None:
    assert problems(tmp_path / "missing.sh") == ["F: can't be read: No such file or directory"]
    assert problems(tmp_path) == ["F: can't be read: it is a folder, no file"]
    assert problems(written(tmp_path, b"#" * (2**20 + 1))) == [
        "F: can't be read: it has more than 1,048,576 bytes"
    ]
    assert problems(written(tmp_path, b"A=1\nB=\xff\n")) == ["F:2: is no UTF-8 text"]
    assert problems(written(tmp_path, b"A=1\nB=\0\n")) == ["F:2: holds the control character U+0000"]
