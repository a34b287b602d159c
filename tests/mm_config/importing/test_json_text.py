"""JSON with comments: what is read, with which lines, and what is refused, with which words."""

from pathlib import Path

import pytest

from mm_config.importing.facts import Source, facts_of, generic
from mm_config.importing.nodes import Mapping, leaves, plain
from mm_config.importing.parsers.json_text import read_json
from mm_config.schema.errors import UserError

DATA = Path(__file__).parent / "data"


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "model.json"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def problems(file: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_json(file)
    return [str(problem).replace(str(file), "F") for problem in caught.value.problems]


def test_the_documented_model_file_is_refused_with_both_of_its_mistakes() -> None:
    assert problems(DATA / "seed_model_as_printed.json") == [
        'F:59: expected a comma before "patch"',
        "F:63: a comma before the closing }, which JSON does not allow",
    ]


def test_the_documented_model_file_is_read_once_it_is_corrected() -> None:
    facts = {path: (value, line) for path, value, line in leaves(read_json(DATA / "seed_model.json"))}
    assert len(facts) == 50
    assert facts["load_video_features"] == (False, 2)
    assert facts["diffusion.max_timestep_boundary"] == (0.417, 11)
    assert facts["predictor.pipeline_num_layers"] == ((10, 10, 10, 10), 29)
    assert facts["ae.tiling_param.tile_sample_min_height"] == (256, 44)
    assert facts["encoder_offload_interval"] == (8, 63)


def test_the_documented_clip_list_is_refused_at_each_set_and_where_it_was_cut_short() -> None:
    spellings = (
        '{480, 832} is a set, which JSON does not have; write [480, 832] or {"height": 480, "width": 832}'
    )
    assert problems(DATA / "seed_clips_as_printed.json") == [
        f"F:7: [0].resolution: {spellings}",
        f"F:14: [1].resolution: {spellings}",
        "F:16: [2]: expected a value, got ..., where an example was cut short; the whole file is needed",
    ]


@pytest.mark.parametrize("spelling", ["[480, 832]", '{"height": 480, "width": 832}'])
def test_both_spellings_that_a_set_s_message_names_are_read(spelling: str, tmp_path: Path) -> None:
    text = (DATA / "seed_clips_as_printed.json").read_text()
    text = text.replace("{480, 832}", spelling).replace("},\n...", "}")
    clips = plain(read_json(written(tmp_path, text)))
    assert isinstance(clips, list) and len(clips) == 2
    resolution = [clip["resolution"] for clip in clips if isinstance(clip, dict)]
    assert resolution == [[480, 832]] * 2 or resolution == [{"height": 480, "width": 832}] * 2


def test_every_value_has_the_line_of_its_key(tmp_path: Path) -> None:
    text = (
        '{\n"a":\n\n1, // one\n/* two\nlines */ "b": {"c": [\n{"d": null}, "h://x"]\n}, "e": [], "f": {}}\n'
    )
    node = read_json(written(tmp_path, text))
    assert list(leaves(node)) == [
        ("a", 1, 2),
        ("b.c[0].d", None, 7),
        ("b.c[1]", "h://x", 7),
        ("e", (), 8),
        ("f", {}, 8),
    ]
    assert isinstance(node.value, Mapping)
    below = node.value.get("b")
    assert below is not None and below.line == 6 and node.value.get("z") is None
    source = Source(tmp_path / "model.json", "model.json")
    fact = facts_of(node, source)[1]
    assert (fact.source, fact.path, fact.value, fact.line) == (source, "b.c[0].d", None, 7)
    assert facts_of(node, source)[1].place == f"{tmp_path}/model.json:7"
    assert generic("a[12].b[0]") == "a[].b[]"


def test_numbers_and_texts_are_what_json_says(tmp_path: Path) -> None:
    text = r'[1, -0, 1.0, 1e-6, -2E+3, "\u00e9\n\"\\", "", true, false, null, 123456789012345678901]'
    values = plain(read_json(written(tmp_path, text)))
    assert values == [1, 0, 1.0, 1e-6, -2000.0, 'é\n"\\', "", True, False, None, 123456789012345678901]
    assert isinstance(values, list) and [type(value) for value in values[:4]] == [int, int, float, float]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "F:1: is empty"),
        ("// only this\n", "F:1: is empty"),
        ('{"a": 1,\n"b": 2, "a": 3}', "F:2: a: the key is given twice, first on line 1"),
        ('{"a": {"b": 1,\n}}', "F:1: a: a comma before the closing }, which JSON does not allow"),
        ("[1, 2,\n]", "F:1: a comma before the closing ], which JSON does not allow"),
        ("[1\n2]", "F:2: expected a comma before 2"),
        ('{"a": 1\n"b": 2}', 'F:2: expected a comma before "b"'),
        ('{"a": {"b" 1}}', "F:1: a: expected a colon after the key b, got 1"),
        ('{"a": NaN}', "F:1: a: NaN is no JSON number, and no value here may be it"),
        ('{"a": -Infinity}', "F:1: a: -Infinity is no JSON number, and no value here may be it"),
        ('{"a": True}', "F:1: a: True is written true in JSON"),
        ('{"a": 1e999}', "F:1: a: 1e999 is larger than a number can be"),
        ('{"a": 012}', "F:1: a: expected a value, got 012"),
        ('{"a": .5}', "F:1: a: expected a value, got .5"),
        ('{"a": bf16}', "F:1: a: expected a value, got bf16"),
        (
            "{'a': 1}",
            "F:1: expected a key in double quotes, got a single quote; texts stand in double quotes",
        ),
        (
            '{"a": 1, # x\n}',
            "F:1: expected a key in double quotes, got #; a comment begins with // or stands in /* */",
        ),
        ('{"a": \n"b}', "F:2: a: the text that begins here has no closing quote on its line"),
        ('{"a": "\\q"}', 'F:1: a: "\\q" is no JSON text: Invalid \\escape'),
        ('{"a": "\\ud800"}', "F:1: a: holds a lone surrogate, which is no Unicode text: '\\ud800'"),
        ('{"a": 1', "F:1: expected a comma or } (for the bracket of line 1), got the end of the file"),
        ('{"a": [1}', "F:1: a: expected a comma or ] (for the bracket of line 1), got }"),
        ('{"a": 1}\n}', "F:2: expected nothing after the end of the data, got a second closing bracket"),
        ('{"a": 1}\n{', "F:2: expected nothing after the end of the data, got {"),
        ("{} /* x", "F:1: the comment that begins with /* has no */"),
        ('{"a": {"x", "y"}}', 'F:1: a: {"x", "y"} is a set, which JSON does not have; write ["x", "y"]'),
        ('{"a": {480}}', "F:1: a: {480} is a set, which JSON does not have; write [480]"),
    ],
)
def test_what_is_no_json_is_refused_with_its_line_and_key(text: str, expected: str, tmp_path: Path) -> None:
    assert problems(written(tmp_path, text))[0] == expected


def test_a_number_with_too_many_digits_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, '{"a": ' + "9" * 5000 + "}")
    assert problems(file) == ["F:1: a: a number with more digits than can be read"]


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    assert "nested deeper than 64 levels" in problems(written(tmp_path, "[" * 100_000))[0]
    assert "nested deeper than 64 levels" in problems(written(tmp_path, '{"a":' * 100_000))[0]


def test_reading_stops_after_twenty_mistakes(tmp_path: Path) -> None:
    found = problems(written(tmp_path, "[" + "{1, 2},\n" * 100_000 + "0]"))
    assert len(found) == 21
    assert found[-1] == "F:20: reading stopped here, after 20 mistakes"


def test_a_byte_order_mark_and_crlf_are_read_over(tmp_path: Path) -> None:
    node = read_json(written(tmp_path, b'\xef\xbb\xbf{\r\n"a": 1,\r\n"b": 2}\r\n'))
    assert list(leaves(node)) == [("a", 1, 2), ("b", 2, 3)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{\n"a": "\xff"}', "F:2: is no UTF-8 text"),
        (b'{\n"a": "\x00"}', "F:2: holds the control character U+0000"),
        (b'{\n"a": 1\r}', "F:2: holds the control character U+000D"),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_their_line(
    data: bytes, expected: str, tmp_path: Path
) -> None:
    assert problems(written(tmp_path, data)) == [expected]


def test_files_that_can_t_be_read_are_refused_in_one_line(tmp_path: Path) -> None:
    assert problems(tmp_path / "missing.json") == ["F: can't be read: No such file or directory"]
    assert problems(tmp_path) == ["F: can't be read: it is a folder, no file"]
    assert problems(Path("/dev/zero")) == ["F: can't be read: it is a device, no file"]
    assert problems(Path("a\0b")) == ["'a\\x00b': a file's name can't hold the character U+0000"]
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert problems(tmp_path / "loop") == ["F: can't be read: Too many levels of symbolic links"]


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(written(tmp_path, "[1]"))
    assert plain(read_json(tmp_path / "link.json")) == [1]


def test_a_file_larger_than_sixteen_mebibytes_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, b" " * (16 * 2**20) + b"1")
    assert problems(file) == ["F: can't be read: it has more than 16,777,216 bytes"]
