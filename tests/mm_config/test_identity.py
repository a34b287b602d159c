"""The bytes that hashes are taken of, and what does and does not change them."""

import hashlib
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import tiny, tiny_high
from mm_config import diff, exact_hash, replace, spec_hash
from mm_config.evolve import Leaf, leaves
from mm_config.identity import EXACT_ROLES, canonical, canonical_bytes
from mm_config.schema import EXECUTION, LOCATION, SECRET, SEMANTIC, field, spec
from mm_config.specs.diffusion import FlowMatchingSpec, LossWeighting
from mm_config.specs.train import AdamWSpec, ScheduleSpec, TrainRuntimeSpec
from mm_config.specs.weights import RandomWeights, TrainedBy


def test_canonical_bytes_are_these() -> None:
    assert canonical_bytes(AdamWSpec(lr=1e-5, betas=(0.9, 1e-7), max_grad_norm=1)) == (
        b'{"kind":"adamw","spec":{"betas":[0.9,1e-7],"eps":1e-8,"lr":0.00001,"max_grad_norm":1,'
        b'"weight_decay":0.01},"v":1}'
    )
    assert canonical_bytes(FlowMatchingSpec(weighting=LossWeighting.BELL)) == (
        b'{"kind":"flow-matching","spec":{"boundary":null,"num_train_timesteps":1000,"shift":5,'
        b'"weighting":"bell"},"v":1}'
    )


def test_a_nested_spec_carries_its_tag_and_a_trained_one_its_hash() -> None:
    trained = TrainedBy(spec=tiny_high.SPEC)
    assert canonical(trained) == {"~": "trained-by", "spec": spec_hash(tiny_high.SPEC)}
    assert canonical(tiny_high.SPEC.optim)["~"] == "adamw"  # type: ignore[index,call-overload]


def test_hashes_are_sha256_of_the_canonical_bytes() -> None:
    assert spec_hash(AdamWSpec()) == hashlib.sha256(canonical_bytes(AdamWSpec())).hexdigest()
    exact = canonical_bytes(TrainRuntimeSpec(), EXACT_ROLES)
    assert exact_hash(TrainRuntimeSpec()) == hashlib.sha256(exact).hexdigest()


@pytest.mark.parametrize("seed", [2**53 - 1, 2**53, 2**53 + 1, 2**64 - 1])
def test_large_seeds_keep_all_their_digits(seed: int) -> None:
    written = str(seed) if seed < 2**53 else f'"{seed}"'
    expected = f'{{"kind":"random-weights","spec":{{"seed":{written}}},"v":1}}'
    assert canonical_bytes(RandomWeights(seed=seed)).decode() == expected


def test_an_integer_in_a_float_field_is_that_float() -> None:
    assert spec_hash(FlowMatchingSpec(shift=5)) == spec_hash(FlowMatchingSpec(shift=5.0))
    assert spec_hash(FlowMatchingSpec(shift=2**60)) == spec_hash(FlowMatchingSpec(shift=2.0**60))


def test_roles_decide_which_hash_a_field_enters() -> None:
    @spec("test-roles")
    class Roles:
        """One field of each role."""

        a: int = field(default=0, role=SEMANTIC)
        b: int = field(default=0, role=EXECUTION)
        c: str = field(default="", role=LOCATION)
        d: str = field(default="", role=SECRET)

    assert canonical(Roles(b=1, c="x", d="y")) == {"~": "test-roles", "a": 0}
    assert canonical(Roles(b=1, c="x", d="y"), EXACT_ROLES) == {"~": "test-roles", "a": 0, "b": 1}


def test_a_field_added_later_is_emitted_only_where_it_differs_from_neutral() -> None:
    def define(**added: Any) -> type[Any]:
        namespace = {"__doc__": "A growing class.", "__annotations__": {"lr": float}, "lr": 1.0}
        for name, declaration in added.items():
            namespace["__annotations__"][name] = bool
            namespace[name] = declaration
        return spec("test-growing")(type("Growing", (), namespace))

    before = define()()
    after = define(eps_in_sqrt=field(default=False, neutral=False))
    other_default = define(eps_in_sqrt=field(default=True, neutral=False))
    assert spec_hash(before) == spec_hash(after()) == spec_hash(other_default(eps_in_sqrt=False))
    assert spec_hash(before) != spec_hash(other_default())
    assert canonical(other_default()) == {"~": "test-growing", "lr": 1.0, "eps_in_sqrt": True}


def test_neutral_is_compared_as_canonical_bytes_not_as_python_values() -> None:
    @spec("test-neutral-number")
    class Number:
        """True == 1 in Python, but not in bytes."""

        value: int | bool = field(default=1, neutral=True)

    assert canonical(Number(value=1)) == {"~": "test-neutral-number", "value": 1}
    assert canonical(Number(value=True)) == {"~": "test-neutral-number"}


def test_a_wire_name_pins_the_name_and_a_schema_above_one_shows() -> None:
    @spec("test-wire", schema=2)
    class Wire:
        """A renamed field."""

        learning_rate: float = field(default=1.0, wire="lr")

        @staticmethod
        def migrate(payload: dict[str, Any], schema: int) -> dict[str, Any]:
            return payload

    assert canonical(Wire()) == {"~": "test-wire", "~schema": 2, "lr": 1.0}


def test_what_a_spec_cannot_hold_is_refused_with_its_path() -> None:
    with pytest.raises(TypeError, match=r"spec\.1\.0: cannot take the hash of dict"):
        canonical((1, ({},)))


def test_labels_and_execution_settings_leave_spec_hash_alone() -> None:
    base = tiny_high.SPEC
    renamed = replace(base, "name", "other")
    assert (spec_hash(renamed), exact_hash(renamed)) == (spec_hash(base), exact_hash(base))
    for path, value in (("data.workers", 7), ("runtime.micro_batch_size", 8), ("fsdp.wrap", ("blocks.0",))):
        changed = replace(base, path, value)
        assert spec_hash(changed) == spec_hash(base)
        assert exact_hash(changed) != exact_hash(base)


def test_execution_settings_of_a_training_do_not_rename_what_is_made_from_it() -> None:
    base = tiny.SPEC
    elsewhere = replace(base, "high_noise.spec.runtime.device", "cuda")
    retrained = replace(base, "high_noise.spec.optim.lr", 1e-4)
    assert (spec_hash(elsewhere), exact_hash(elsewhere)) == (spec_hash(base), exact_hash(base))
    assert spec_hash(retrained) != spec_hash(base)


def test_hashes_do_not_depend_on_python_s_hash_seed() -> None:
    script = "from experiments.tiny import SPEC; from mm_config import exact_hash; print(exact_hash(SPEC))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert printed == {exact_hash(tiny.SPEC)}


def other_value(leaf: Leaf) -> st.SearchStrategy[Any]:
    """Values of a leaf's own type; most differ from the one it has."""
    if isinstance(leaf.value, bool):
        return st.booleans()
    if isinstance(leaf.value, int):
        return st.integers(int(leaf.info.ge or 1), 2**63)
    if isinstance(leaf.value, float):
        return st.floats(0.001, 0.999)
    return st.just(leaf.value)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_hash_changes_exactly_with_the_semantic_fields(data: st.DataObject) -> None:
    changes = {}
    for leaf in data.draw(st.lists(st.sampled_from(list(leaves(tiny_high.SPEC))), max_size=3)):
        if leaf.info.le is None:
            changes[leaf.path] = data.draw(other_value(leaf))
    changed = replace(tiny_high.SPEC, changes)
    roles = {change.role for change in diff(tiny_high.SPEC, changed)}
    assert (spec_hash(changed) != spec_hash(tiny_high.SPEC)) == (SEMANTIC in roles)
    assert (exact_hash(changed) != exact_hash(tiny_high.SPEC)) == bool(roles & {SEMANTIC, EXECUTION})


def test_steps_are_part_of_the_hash() -> None:
    assert len({spec_hash(ScheduleSpec(steps=steps)) for steps in range(1, 50)}) == 49
