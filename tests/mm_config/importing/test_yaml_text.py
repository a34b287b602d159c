"""YAML with lines: what is read and what is refused."""

from pathlib import Path

import pytest
import yaml

from mm_config.importing.nodes import leaves, plain
from mm_config.importing.parsers.yaml_text import read_yaml
from mm_config.schema.errors import UserError

DATA = Path(__file__).parent / "data"


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "fsdp2.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def problems(file: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_yaml(file)
    return [str(problem).replace(str(file), "F") for problem in caught.value.problems]


def test_the_documented_sharding_file_is_read_with_its_lines() -> None:
    assert list(leaves(read_yaml(DATA / "seed_custom_fsdp2.yaml"))) == [
        ("sharding_size", 8, 1),
        ("sub_modules_to_wrap", ("predictor.blocks.{*}", "predictor.head"), 2),
        ("reshard_after_forward", True, 5),
        ("param_dtype", "bf16", 6),
        ("reduce_dtype", "fp32", 7),
        ("ignored_modules", ("ae", "text_encoder"), 8),
        ("cast_forward_inputs", True, 11),
        ("recompute_modules", ("predictor.blocks.{*}",), 12),
        ("offload_to_cpu", False, 14),
    ]


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = "a: no\nb: 1e-5\nc: ~\nd: 017\ne: [1, {f: x}]\n'g': {}\nh: |\n  two\n  lines\n"
    assert plain(read_yaml(written(tmp_path, text))) == {
        "a": "no",
        "b": 1e-5,
        "c": None,
        "d": 17,
        "e": [1, {"f": "x"}],
        "g": {},
        "h": "two\nlines\n",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "F:1: is empty"),
        ("a: 1\nb: 2\na: 3\n", "F:3: a: the key is given twice, first on line 1"),
        ("a:\n  b: .nan\n", "F:2: a.b: .nan is no number that a value here may be"),
        ("a:\n  1: x\n", "F:2: a: a key must be a text, got 1; write it in quotes"),
        ("a:\n  [x]: y\n", "F:2: a: a key must be a text, got a sequence; write it in quotes"),
        ("a: &x 1\nb: *y\n", "F:2: no YAML:"),
        ("a: &x [*x]\n", "F:1: "),
        ("a: {<<: 1}\n", "F:1: << merges mappings alone"),
        (
            "a: 1\nb: !!python/object:os.system x\n",
            "F:2: the tag tag:yaml.org,2002:python/object:os.system is",
        ),
        ("a: 1\nb: [1\nc: 2\n", "F:3: no YAML:"),
        ("a: 1\n---\nb: 2\n", "F:2: no YAML: but found another document"),
        ("a: 1\n\tb: 2\n", "F:2: no YAML:"),
        ("a: 1\nb: {480, 832\n", "F:3: no YAML:"),
        ("a: \x07\n", "F:1: holds the control character U+0007"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(text: str, expected: str, tmp_path: Path) -> None:
    assert problems(written(tmp_path, text))[0].startswith(expected)


def test_a_bomb_of_aliases_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    assert "its aliases come to more than 100,000 values" in problems(written(tmp_path, "\n".join(lines)))[0]


def test_aliases_and_merges_are_what_safe_load_makes_of_them(tmp_path: Path) -> None:
    text = (
        "base: &b {lr: 1, wd: [1, 2]}\nx: *b\ny:\n  <<: *b\n  lr: 3\nz: {<<: [{p: 1}, *b], q: &n 5, r: *n}\n"
    )
    read = read_yaml(written(tmp_path, text))
    assert plain(read) == yaml.safe_load(text)
    assert [line for path, _, line in leaves(read) if path in ("y.lr", "z.q", "z.r")] == [5, 6, 6]


def test_deep_nesting_and_large_files_are_refused(tmp_path: Path) -> None:
    assert "nested deeper than 64 levels" in problems(written(tmp_path, "[" * 80 + "]" * 80))[0]
    assert "nested deeper than 64 levels" in problems(written(tmp_path, "[" * 5_000))[0]
    assert problems(written(tmp_path, b"#" * (2**18 + 1))) == [
        "F: can't be read: it has more than 262,144 bytes"
    ]


def test_a_byte_order_mark_and_crlf_are_read_over(tmp_path: Path) -> None:
    node = read_yaml(written(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: x\r\n"))
    assert list(leaves(node)) == [("a", 1, 1), ("b", "x", 2)]
