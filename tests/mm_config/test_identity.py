"""The bytes that hashes are taken of, and what does and does not change them."""

import doctest
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import tiny, tiny_high
from mm_config import exact_hash, replace, spec_hash
from mm_config.cli.app import app
from mm_config.schema.decorator import spec
from mm_config.schema.fields import EXECUTION, LOCATION, SECRET, SEMANTIC, field
from mm_config.schema.identity import EXACT_ROLES, canonical, canonical_bytes
from mm_config.specs.diffusion import FlowMatchingSpec, LossWeighting
from mm_config.specs.optim import AdamWSpec, ScheduleSpec
from mm_config.specs.train import TrainRuntimeSpec
from mm_config.specs.weights import RandomWeights, TrainedBy
from tests.mm_config.strategies import experiments

ROOT = Path(__file__).parents[2]


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


def test_a_neutral_spec_is_compared_by_what_it_emits() -> None:
    @spec("test-part-of-neutral")
    class Part:
        """Grew a field itself."""

        size: float = field(default=1.0)
        """Of birth."""
        label: str = field(default="", role=LOCATION)
        """In no hash."""
        later: tuple[float, ...] = field(default=(2.0,), neutral=(1.0,))
        """Added later."""

    @spec("test-neutral-spec")
    class Whole:
        """Grew a field that holds a spec."""

        part: Part | None = field(default=None, neutral=Part(later=(1,)))
        """Added later."""

    same = Whole(part=Part(size=1, label="x", later=(1.0,)))
    assert canonical(same, EXACT_ROLES) == {"~": "test-neutral-spec"}
    assert canonical(Whole()) == {"~": "test-neutral-spec", "part": None}
    written = {"~": "test-part-of-neutral", "size": 1.0, "later": [2.0]}
    assert canonical(Whole(part=Part())) == {"~": "test-neutral-spec", "part": written}


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


def test_hashes_of_all_experiments_do_not_depend_on_python_s_hash_seed() -> None:
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.mm_config.strategies import experiments\n"
        "from mm_config import exact_hash, spec_hash\n"
        "for name, spec in experiments().items(): print(name, spec_hash(spec), exact_hash(spec))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "20261122")
    }
    expected = [f"{name} {spec_hash(spec)} {exact_hash(spec)}" for name, spec in experiments().items()]
    assert printed == {"\n".join(expected) + "\n"}


def test_the_script_compares_the_pythons_that_are_installed() -> None:
    script = ROOT / "scripts" / "check_python_versions.py"
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    lines = result.stdout.splitlines()[1:]
    assert [line.split(":")[0] for line in lines] == ["3.11", "3.12", "3.13"]
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    for line in lines:
        assert line.endswith(": the same hashes") or (
            line.endswith(": not found") and not line.startswith(own)
        )
    assert result.returncode == 0


def test_steps_are_part_of_the_hash() -> None:
    assert len({spec_hash(ScheduleSpec(steps=steps)) for steps in range(1, 50)}) == 49


def fenced(kind: str) -> list[str]:
    """The blocks of one kind on the page about identity."""
    page = (ROOT / "docs" / "identity.md").read_text("utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_the_python_on_the_page_about_identity_prints_what_the_page_says() -> None:
    examples = doctest.DocTestParser().get_doctest(
        "".join(fenced("pycon")), {"__name__": "clips"}, "identity.md", None, 0
    )
    assert len(examples.examples) > 20
    report: list[str] = []
    outcome = doctest.DocTestRunner().run(examples, out=report.append)
    assert outcome.failed == 0, "".join(report)


def test_the_commands_on_the_page_about_identity_print_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    blocks = fenced("console")
    assert len(blocks) == 4
    for block in blocks:
        printed = ""
        for command in re.findall(r"^\$ mm (.*)$", block, re.MULTILINE):
            app(command.split())
            output = capsys.readouterr()
            printed += f"$ mm {command}\n{output.out}{output.err}"
        assert printed == block
