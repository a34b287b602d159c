"""Manifests: every wrong line is named, and nothing outside of the folder is reached."""

from __future__ import annotations

import os

import pytest

from mm_config.options.locations import load_locations
from mm_config.schema.errors import UserError
from mm_config.specs.datasets import ManifestSpec
from mm_data import prepare
from mm_data.manifest import read_manifest

TWO = '{"path": "a.mp4", "caption": "one"}\n{"path": "b/c.mp4", "caption": "two"}\n'


def lines_of(error: pytest.ExceptionInfo[UserError]) -> list[str]:
    return str(error.value).splitlines()


def test_records_keep_order_and_captions(tmp_path, write_manifest):
    dataset = read_manifest(write_manifest(TWO + "\n"))
    assert [record.caption for record in dataset.records] == ["one", "two"]
    assert [record.path for record in dataset.records] == [tmp_path / "a.mp4", tmp_path / "b/c.mp4"]


def test_the_digest_follows_paths_captions_and_order(write_manifest):
    digest = read_manifest(write_manifest(TWO)).order_key
    assert read_manifest(write_manifest(TWO.replace("{", "{ "))).order_key == digest
    changed = (
        TWO.replace("two", "2"),
        TWO.replace("a.mp4", "d.mp4"),
        "".join(reversed(TWO.splitlines(True))),
    )
    assert digest not in {read_manifest(write_manifest(text)).order_key for text in changed}


def test_all_wrong_lines_are_reported_with_their_numbers(write_manifest):
    path = write_manifest(
        '{"path": "a.mp4", "caption": "fine"}\n'
        '{"path": "a.mp4", "resolution": {480, 832}}\n'
        "[1, 2]\n"
        '{"caption": 3}\n'
        '{"path": "/etc/passwd", "caption": ""}\n'
        '{"path": "x/../../y.mp4", "caption": ""}\n'
    )
    with pytest.raises(UserError) as error:
        read_manifest(path)
    first, *others = lines_of(error)
    assert first.startswith(f"{path}:2: not JSON: ")
    assert others == [
        f'{path}:3: expected an object with "path" and "caption", got [1, 2]',
        f'{path}:4: the key "path" is missing',
        f'{path}:4: "caption" must be a string, got 3',
        f"{path}:5: an absolute path; paths stay inside the manifest's folder: '/etc/passwd'",
        f"{path}:6: `..` is not allowed in a path; paths stay inside the manifest's folder: 'x/../../y.mp4'",
    ]


def test_long_lists_of_problems_are_capped(write_manifest):
    with pytest.raises(UserError) as error:
        read_manifest(write_manifest("no\n" * 50))
    assert len(lines_of(error)) == 21
    assert lines_of(error)[-1].endswith("and 30 more problems")


def test_links_out_folders_and_pipes_are_refused(tmp_path, write_manifest):
    (tmp_path / "folder").mkdir()
    (tmp_path / "out.mp4").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.mp4")
    names = ("folder", "out.mp4", "pipe.mp4")
    path = write_manifest("".join(f'{{"path": "{name}", "caption": ""}}\n' for name in names))
    with pytest.raises(UserError) as error:
        read_manifest(path)
    assert lines_of(error) == [
        f"{path}:1: not a regular file: 'folder'",
        f"{path}:2: a link that leads out of the folder; paths stay inside the manifest's folder: 'out.mp4'",
        f"{path}:3: not a regular file: 'pipe.mp4'",
    ]


def test_bytes_that_are_no_text_are_reported(tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(b'{"path": "a", "caption": "\xff"}\n')
    with pytest.raises(UserError, match=r"manifest.jsonl:1: not UTF-8"):
        read_manifest(path)


def test_lines_on_which_parsers_and_file_systems_choke_are_reported(tmp_path, write_manifest):
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    path = write_manifest(
        "[" * 100_000 + "\n"
        f'{{"path": "a.mp4", "caption": "", "frames": {"1" * 5000}}}\n'
        '{"path": "\\ud800.mp4", "caption": "\\udc00"}\n'
        f'{{"path": "{"a" * 5000}", "caption": ""}}\n'
        '{"path": "loop.mp4", "caption": ""}\n'
    )
    with pytest.raises(UserError) as error:
        read_manifest(path)
    deep, large, *others, long, loop = lines_of(error)
    assert deep.startswith(f"{path}:1: not JSON that can be read: ")
    assert large.startswith(f"{path}:2: not JSON that can be read: ")
    assert others == [
        f'{path}:3: "path" holds half of a surrogate pair, which is no character',
        f'{path}:3: "caption" holds half of a surrogate pair, which is no character',
    ]
    assert long.startswith(f"{path}:4: not a path: ") and len(long) < 400
    assert loop.startswith(f"{path}:5: ")


def test_a_key_that_is_given_twice_is_no_choice_of_ours(write_manifest):
    path = write_manifest('{"path": "a.mp4", "path": "b.mp4", "caption": ""}\n')
    with pytest.raises(UserError) as error:
        read_manifest(path)
    assert lines_of(error) == [f"{path}:1: not JSON that can be read: the key 'path' is given twice"]


def test_missing_and_empty_manifests(tmp_path, write_manifest):
    with pytest.raises(UserError, match=r"none\.jsonl: no such manifest"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="the manifest lists no clips"):
        read_manifest(write_manifest("\n"))


def test_prepare_finds_a_manifest_by_path_by_folder_and_by_name(tmp_path, write_manifest):
    path = write_manifest(TWO)
    locations = load_locations([f"clips={path}"])
    paths = (str(path), str(tmp_path))
    found = {prepare(ManifestSpec(name="clips", path=at), cache_dir=tmp_path) for at in paths}
    assert found == {prepare(ManifestSpec(name="clips"), cache_dir=tmp_path, locations=locations)}
    with pytest.raises(UserError, match="--location other=PATH"):
        prepare(ManifestSpec(name="other"), cache_dir=tmp_path, locations=locations)


def test_a_location_given_by_a_flag_is_not_passed_over(tmp_path, write_manifest):
    path = write_manifest(TWO)
    spec = ManifestSpec(name="clips", path=str(path))
    with pytest.raises(UserError, match=r"spec\.data\.dataset\.path: .* give one of them"):
        prepare(spec, cache_dir=tmp_path, locations=load_locations([f"clips={path}"]))
