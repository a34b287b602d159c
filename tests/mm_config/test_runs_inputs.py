"""What a run was made of: in its folder, its result and the index."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from experiments.tiny_high import SPEC
from mm_config import replace, spec_hash
from mm_config.content import Input, made_of
from mm_config.options import RunOptions
from mm_config.runs import attach, open_run, read_inputs
from mm_config.runs.index import open_index
from mm_config.runs.inputs import name_key
from mm_config.schema import UserError

NAMED = replace(SPEC, "name", "tiny_high")
DATA = Input(
    digest="a" * 64, kind="manifest-dataset", name='my "clips"', revision="1", details={"path": "/x"}
)
SPEC_HASH = spec_hash(NAMED)
INPUTS = {"spec.data.dataset": DATA, "spec.start_from": Input(digest="b" * 64, kind="trained-by")}


@pytest.mark.usefixtures("each_database")
def test_a_run_records_what_it_is_made_of(tmp_path: Path) -> None:
    run = open_run(NAMED, RunOptions(tmp_path), inputs=INPUTS)
    expected = made_of(spec_hash(NAMED), INPUTS)
    assert run.record.made_of == attach(run.path).record.made_of == expected
    assert read_inputs(run.path) == INPUTS
    assert json.loads(run.finish({}).read_text()) == {"made_of": expected}
    for _ in range(2):  # Before and after the index is made anew.
        index = open_index(tmp_path)
        assert [record.made_of for record in index.list(matching=expected[:12])] == [expected]
        found = index.newest_named(name_key(DATA))
        assert found is not None and (found[0].path, found[1]) == (run.record.path, DATA.digest)
        assert index.newest_named(name_key(Input(digest="a", kind="k", name="n"))) is None
        index.runs.drop(index.engine)


def test_a_run_without_inputs_has_content_that_is_not_recorded(tmp_path: Path) -> None:
    run = open_run(NAMED, RunOptions(tmp_path))
    status = json.loads((run.path / "status.json").read_text())
    del status["made_of"]  # As runs wrote it before there was any.
    (run.path / "status.json").write_text(json.dumps(status))
    open_index(tmp_path).reindex()
    assert attach(run.path).record.made_of is None and read_inputs(run.path) is None
    assert [record.made_of for record in open_index(tmp_path).list(matching=spec_hash(NAMED))] == [None]


def test_a_damaged_list_of_inputs_is_told_and_stops_no_index(tmp_path: Path) -> None:
    run = open_run(NAMED, RunOptions(tmp_path), inputs=INPUTS)
    (run.path / "inputs.json").write_text('{"inputs": {"spec.data": {"digests": 1}}}')
    with pytest.raises(UserError, match=r"inputs\.json: is no list of a run's inputs"):
        read_inputs(run.path)
    assert open_index(tmp_path).reindex() == 1


EDITS = [("a" * 64, "c" * 64), ('"numerics": ', '"numerics": 9'), (SPEC_HASH, "d" * 64)]


@pytest.mark.parametrize("edited", EDITS)
def test_an_edited_list_of_inputs_is_refused_and_one_of_other_numerics_is_read(
    edited: tuple[str, str], tmp_path: Path
) -> None:
    run = open_run(NAMED, RunOptions(tmp_path), inputs=INPUTS)
    file = run.path / "inputs.json"
    before = file.read_text()
    assert edited[0] in before
    file.write_text(before.replace(*edited))
    with pytest.raises(UserError, match=r"inputs\.json: is not what the run was made of: .*; it was edited"):
        read_inputs(run.path)
    content = json.loads(before)
    listed = {path: one["digest"] for path, one in content["inputs"].items()}
    of_old = {"inputs": listed, "kind": "made-of", "numerics": 0, "spec": SPEC_HASH, "v": 1}
    digest = hashlib.sha256(json.dumps(of_old, separators=(",", ":")).encode()).hexdigest()
    file.write_text(json.dumps({**content, "numerics": 0, "made_of": digest}))
    assert read_inputs(run.path) == INPUTS


def test_a_run_that_goes_on_without_its_list_has_content_that_is_not_known(tmp_path: Path) -> None:
    run = open_run(NAMED, RunOptions(tmp_path), inputs=INPUTS)
    run.fail("stopped")
    (run.path / "inputs.json").unlink()
    again = open_run(NAMED, RunOptions(tmp_path, resume=str(run.path)), inputs=INPUTS)
    assert again.record.made_of is None and read_inputs(run.path) is None
    again.fail("stopped")


def test_a_name_is_no_other_run_s_where_only_the_run_itself_knew_it(tmp_path: Path) -> None:
    run = open_run(NAMED, RunOptions(tmp_path), inputs=INPUTS)
    index = open_index(tmp_path)
    assert index.newest_named(name_key(DATA), run.record.uid) is None
    other = open_run(NAMED, RunOptions(tmp_path), inputs=INPUTS)
    found = index.newest_named(name_key(DATA), run.record.uid)
    assert found is not None and found[0].uid == other.record.uid
