"""Payloads of older schemas: what a class that changed shape makes of what was stored before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import tiny, tiny_high
from mm_config import dump, exact_hash, load, replace, spec_hash
from mm_config.schema.decorator import spec
from mm_config.schema.errors import Problem, SpecError, UserError
from mm_config.schema.fields import field
from mm_config.schema.identity import canonical, canonical_bytes, payload_hash
from mm_config.specs.kinds import DatasetSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import TrainedBy
from mm_config.stored.files import (
    StoredIdentity,
    dumps,
    from_payload,
    load_identity,
    stored_identity,
    to_payload,
)


@spec("test-clip-length", schema=3)
class ClipLength:
    """Stored minutes under schema 1, seconds under 2, frames and their rate under 3."""

    frames: int = field(ge=1)
    """Length."""
    fps: int = field(default=16, ge=1, wire="rate")
    """Frames per second."""
    loop: bool = field(default=True, neutral=False)
    """Added to schema 3 after its birth."""

    @staticmethod
    def migrate(payload: dict[str, Any], schema: int) -> dict[str, Any]:
        if schema == 1:
            minutes = payload.pop("minutes")
            return {**payload, "seconds": minutes * 60}
        if payload["seconds"] > 3600:
            raise UserError(Problem("seconds", "is longer than an hour, which schema 3 does not hold"))
        return {"frames": payload.pop("seconds") * 16, "rate": 16, **payload}


@spec("test-playlist")
class Playlist:
    """Holds specs that changed shape, and did not change itself."""

    first: ClipLength
    """One."""
    others: tuple[ClipLength, ...] = ()
    """More."""
    best: ClipLength | None = None
    """None for none."""


@spec("test-clips-dataset", schema=2)
class ClipsDataset(DatasetSpec):
    """Stored its size as a text under schema 1."""

    height: int = field(ge=1)
    """Height."""
    width: int = field(ge=1)
    """Width."""

    @staticmethod
    def migrate(payload: dict[str, Any], schema: int) -> dict[str, Any]:
        height, width = payload.pop("size").split("x")
        return {"height": int(height), "width": int(width), **payload}


def stored(kind: str, **fields: Any) -> dict[str, Any]:
    return {"v": 1, "kind": kind, "spec": fields}


def refusals(payload: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        from_payload(payload)
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    "fields",
    [
        {"minutes": 2},
        {"~schema": 1, "minutes": 2},
        {"~schema": 2, "seconds": 120},
        {"~schema": 3, "frames": 1920, "rate": 16},
        {"~schema": 3, "frames": 1920, "rate": 16, "loop": False},
    ],
)
def test_every_older_schema_loads_as_the_present_one(fields: dict[str, Any]) -> None:
    payload = stored("test-clip-length", **fields)
    before = json.dumps(payload)
    assert from_payload(payload) == ClipLength(frames=1920, fps=16, loop=False)
    assert json.dumps(payload) == before


def test_what_is_written_says_its_schema_and_loads_back(tmp_path: Path) -> None:
    clip = ClipLength(frames=5, fps=8)
    assert to_payload(clip)["spec"] == {"~schema": 3, "frames": 5, "rate": 8, "loop": True}
    assert canonical(clip) == {"~": "test-clip-length", "~schema": 3, "frames": 5, "rate": 8, "loop": True}
    for name in ("clip.json", "clip.yaml"):
        dump(clip, tmp_path / name)
        assert load(tmp_path / name) == clip


def test_specs_inside_specs_and_tuples_migrate_each_from_its_own_schema() -> None:
    payload = stored(
        "test-playlist",
        first={"~": "test-clip-length", "minutes": 1},
        others=[
            {"~": "test-clip-length", "~schema": 2, "seconds": 5},
            {"~": "test-clip-length", "~schema": 3, "frames": 7, "rate": 9, "loop": True},
        ],
        best={"~": "test-clip-length", "minutes": 3},
    )
    assert from_payload(payload) == Playlist(
        first=ClipLength(frames=960, loop=False),
        others=(ClipLength(frames=80, loop=False), ClipLength(frames=7, fps=9)),
        best=ClipLength(frames=2880, loop=False),
    )
    assert stored_identity(payload).migrated == ("spec.first", "spec.others.0", "spec.best")


def test_migrating_is_as_strict_as_loading() -> None:
    note = " (after spec was migrated from schema 1 to 3)"
    assert refusals(stored("test-clip-length", minutes=2, lenght=3)) == {
        "spec.lenght": "unknown key (allowed: 'frames', 'rate', 'loop')" + note
    }
    assert refusals(stored("test-clip-length", minutes=0, loop=3)) == {
        "spec.frames": "must be >= 1, got 0" + note,
        "spec.loop": "expected bool, got int 3" + note,
    }
    nested = stored("test-playlist", first={"~": "test-clip-length", "~schema": 2, "seconds": 0.5}, others=[])
    assert refusals(nested) == {
        "spec.first.frames": "expected int, got float 8.0 (after spec.first was migrated from schema 2 to 3)",
        "spec.best": "missing; a file holds every field, the default is None",
    }


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"hours": 2}, "spec", "can't be migrated from schema 1 to 2: the key 'minutes' is missing"),
        ({"~schema": 2, "minutes": 2}, "spec", "can't be migrated from schema 2 to 3: the key 'seconds' is"),
        ({"minutes": None}, "spec", "can't be migrated from schema 1 to 2: TypeError: unsupported operand"),
        ({"minutes": 100}, "spec.seconds", "can't be migrated from schema 2 to 3: is longer than an hour"),
        (
            {"~schema": 4, "frames": 1},
            "spec",
            "schema 4, which is newer than 3, the newest known here; upgra",
        ),
        ({"~schema": 0, "minutes": 2}, "spec", "~schema must be an integer from 1 on, got int 0"),
        ({"~schema": 2.0, "seconds": 2}, "spec", "~schema must be an integer from 1 on, got float 2.0"),
        ({"~schema": True, "minutes": 2}, "spec", "~schema must be an integer from 1 on, got bool True"),
        ({"~schema": None, "minutes": 2}, "spec", "~schema must be an integer from 1 on, got None"),
    ],
)
def test_what_cannot_be_migrated_is_one_clear_problem(
    fields: dict[str, Any], path: str, message: str
) -> None:
    found = refusals(stored("test-clip-length", **fields))
    assert found.keys() == {path}
    assert message in found[path]


def test_a_newer_payload_says_which_package_to_upgrade() -> None:
    newer = to_payload(tiny_high.SPEC)
    newer["spec"]["optim"]["~schema"] = 7  # type: ignore[index,call-overload]
    assert refusals(newer) == {
        "spec.optim": "was written under adamw's schema 7, which is newer than 1, the newest known here; "
        "upgrade mm_config"
    }
    assert refusals({**to_payload(tiny_high.SPEC), "v": 2}) == {
        "v": "the format's version must be 1, got int 2; a newer one needs a newer mm_config"
    }


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_no_content_of_an_old_payload_gives_a_traceback(value: Any) -> None:
    for fields in ({"minutes": value}, {"~schema": 2, "seconds": value}, {"~schema": value, "minutes": 1}):
        try:
            assert isinstance(from_payload(stored("test-clip-length", **fields)), ClipLength)
        except SpecError as error:
            assert error.problems


def old_training() -> dict[str, Any]:
    """A training's payload as it was written when ClipsDataset had schema 1."""
    payload: dict[str, Any] = to_payload(tiny_high.SPEC)
    payload["spec"]["data"]["dataset"] = {"~": "test-clips-dataset", "size": "64x96"}
    return payload


def present_training() -> TrainSpec:
    return replace(tiny_high.SPEC, "data.dataset", ClipsDataset(height=64, width=96))


def test_a_migrated_spec_inside_a_training_is_the_present_training(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(old_training()))
    assert load(file) == present_training()
    identity = load_identity(file)
    assert identity == StoredIdentity(
        payload_hash=payload_hash(old_training()),
        spec_hash=spec_hash(present_training()),
        exact_hash=exact_hash(present_training()),
        migrated=("spec.data.dataset",),
        spec=present_training(),
    )


def test_a_training_that_weights_come_from_is_migrated_with_them() -> None:
    present = replace(tiny.SPEC, "high_noise", TrainedBy(spec=present_training()))
    payload: dict[str, Any] = to_payload(present)
    payload["spec"]["high_noise"]["spec"]["data"]["dataset"] = {"~": "test-clips-dataset", "size": "64x96"}
    assert from_payload(payload) == present
    assert stored_identity(payload).spec_hash == spec_hash(present)
    assert stored_identity(payload).migrated == ("spec.high_noise.spec.data.dataset",)


def test_the_recorded_hash_is_todays_where_nothing_was_migrated() -> None:
    for value in (tiny.SPEC, tiny_high.SPEC, ClipLength(frames=1)):
        identity = stored_identity(to_payload(value))
        assert (identity.spec_hash, identity.exact_hash) == (spec_hash(value), exact_hash(value))
        assert identity.migrated == ()


def test_a_class_that_changes_shape_gives_its_specs_new_hashes_and_keeps_the_payloads() -> None:
    def define(schema: int, name: str, migrate: Callable[..., Any]) -> type[Any]:
        namespace = {
            "__doc__": "Renames its field for good.",
            "__annotations__": {name: int},
            "migrate": staticmethod(migrate),
        }
        return spec("test-reshaped", schema=schema)(type("Reshaped", (), namespace))

    old = define(1, "length", lambda payload, schema: payload)(length=3)
    payload, recorded = to_payload(old), spec_hash(old)
    new = define(2, "frames", lambda payload, schema: {"frames": payload["length"]})(frames=3)
    identity = stored_identity(payload)
    assert from_payload(payload) == new
    assert identity.spec_hash == spec_hash(new) != recorded
    assert identity.payload_hash == payload_hash(payload)
    assert identity.migrated == ("spec",)


def test_a_payloads_own_hash_asks_no_class_and_ignores_how_it_was_written(tmp_path: Path) -> None:
    foreign = {"v": 1, "kind": "nobody-knows", "spec": {"b": 1, "a": [0.5, None, "é", 2**63]}}
    reordered = {"spec": {"a": [0.5, None, "é", 2**63], "b": 1.0}, "kind": "nobody-knows", "v": 1}
    assert payload_hash(foreign) == payload_hash(reordered)
    assert len({payload_hash(foreign), payload_hash({**foreign, "v": 2}), payload_hash({})}) == 3
    for name in ("spec.json", "spec.yaml"):
        dump(tiny.SPEC, tmp_path / name)
    assert (
        load_identity(tmp_path / "spec.json").payload_hash
        == load_identity(tmp_path / "spec.yaml").payload_hash
        == payload_hash(to_payload(tiny.SPEC))
    )
    assert payload_hash(to_payload(replace(tiny.SPEC, "name", "x"))) != payload_hash(to_payload(tiny.SPEC))


def test_reading_a_payload_names_the_file_and_is_strict_about_the_text(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(dumps(tiny.SPEC).replace('"v": 1', '"v": 1, "v": 1', 1))
    with pytest.raises(SpecError) as caught:
        load_identity(file)
    assert str(caught.value) == f"{file}: v: the key is given twice"


def test_a_field_and_a_class_can_be_renamed_in_python_alone() -> None:
    @spec("test-renamed")
    class NewName:
        """Was called OldName, and its field `lr`, when the bytes below were written."""

        learning_rate: float = field(wire="lr")
        """Once `lr`."""

    renamed = NewName(learning_rate=0.5)
    payload = stored("test-renamed", lr=0.5)
    assert canonical_bytes(renamed) == b'{"kind":"test-renamed","spec":{"lr":0.5},"v":1}'
    assert to_payload(renamed) == payload
    assert from_payload(payload) == renamed
    with pytest.raises(SpecError) as caught:
        from_payload(stored("test-renamed", learning_rate=0.5))
    assert [str(problem) for problem in caught.value.problems] == [
        "spec.learning_rate: unknown key (allowed: 'lr')",
        "spec.learning_rate: missing; its key in a file is 'lr'",
    ]
