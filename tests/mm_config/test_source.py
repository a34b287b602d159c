"""Experiment files that are written from specs."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from experiments import tiny, tiny_high, tiny_low
from mm_config import exact_hash, replace, spec_hash
from mm_config.schema.decorator import spec
from mm_config.schema.errors import UserError
from mm_config.schema.fields import field
from mm_config.specs.data import DatasetSpec
from mm_config.specs.kinds import OptimizerSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights, TrainedBy
from mm_config.stored.source import to_source
from tests.mm_config.written_source import assert_gives_back, assert_ruff_changes_nothing, executed

ROOT = Path(__file__).parents[2]


EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("[!_]*.py"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_can_be_written_again(name: str, tmp_path: Path) -> None:
    value = __import__(f"experiments.{name}", fromlist=["SPEC"]).SPEC
    source = assert_gives_back(replace(value, "name", name))
    assert source.count(spec_hash(value)) == 1
    assert source.count(exact_hash(value)) == 1
    assert_ruff_changes_nothing(tmp_path, [source])


def test_a_written_file_says_what_one_by_hand_would() -> None:
    source = to_source(tiny_high.SPEC)
    assert source.startswith(
        '"""Trains the high-noise expert (sigma 0.875 to 1) of a WanTransformer with 3.06 M '
    )
    assert source.endswith('\n\nif __name__ == "__main__":\n    main(SPEC)\n')
    assert "    expert=Expert.HIGH_NOISE,\n" in source
    assert "    optim=AdamWSpec(\n        lr=0.003,\n        betas=(0.9, 0.99),\n    ),\n" in source
    assert "name=" not in source
    assert "precision=" not in source


def test_trainings_and_what_they_share_stand_once_above_the_spec() -> None:
    source = to_source(tiny.SPEC)
    assert [line for line in source.splitlines() if " = " in line and line[:1].isupper()] == [
        "MODEL = WanTransformerSpec(",
        "DIFFUSION = FlowMatchingSpec(",
        "DATA = DataSpec(",
        "OPTIM = AdamWSpec(",
        "HIGH_NOISE = TrainSpec(",
        "LOW_NOISE = TrainSpec(",
        "SPEC = InferSpec(",
    ]
    assert "    start_from=TrainedBy(\n        spec=HIGH_NOISE,\n    ),\n" in source


def test_constants_of_one_name_are_numbered() -> None:
    other = TrainedBy(spec=replace(tiny_high.SPEC, "seed", 1))
    chain = replace(tiny_low.SPEC, "start_from", TrainedBy(spec=replace(tiny_low.SPEC, "start_from", other)))
    source = assert_gives_back(chain)
    assert "\nSTART_FROM = TrainSpec(" in source
    assert "    start_from=TrainedBy(\n        spec=START_FROM_2,\n    ),\n" in source


NASTY = (
    "",
    "it's",
    'say "hi"',
    "it's \"both\" '",
    '"""',
    "back\\slash\\",
    "line\nbreak\ttab\r\x00\x07",
    "色调艳丽，过曝，静态" * 30,
    "wide　space",
    "\u202eright to left\u2066",
    "\ufeffmark",
    "emoji \U0001f600 family \U0001f468\u200d\U0001f469",
    "{braces} % $ #",
    "word " * 60,
    "x" * 400,
    " " * 150,
    "a\\" * 100,
)


def test_texts_of_any_kind_come_back(tmp_path: Path) -> None:
    sources = [
        assert_gives_back(replace(tiny.SPEC, {"samples.prompts": prompts, "name": name}))
        for prompts, name in [(NASTY, NASTY[4]), *(((text,), text) for text in NASTY)]
    ]
    assert_ruff_changes_nothing(tmp_path, sources)


def test_texts_about_as_long_as_a_line_come_back(tmp_path: Path) -> None:
    texts = [filling * length for length in range(86, 110) for filling in ("x", "\\x", "色x")]
    texts += ["word " * 15 + "x" * length for length in range(10, 34)]
    alone = replace(tiny.SPEC, {"high_noise": RandomWeights(), "low_noise": None, "boundary": None})
    sources = [
        assert_gives_back(replace(alone, {"samples.prompts": prompts, "name": text}))
        for text in texts
        for prompts in ((text,), (text, text))
    ]
    assert_ruff_changes_nothing(tmp_path, sources)


def test_the_text_of_a_name_never_ends_the_docstring() -> None:
    for text in NASTY[1:]:
        assert_gives_back(replace(tiny_high.SPEC, "start_from", ReleasedWeights(name=text, revision=text)))


@spec("written-dataset")
class WrittenDataset(DatasetSpec):
    """A dataset of a module that can be imported."""

    level: bool | int | float = field(default=1)
    """Values that Python calls equal."""
    weights: float = field(default=0.0)
    """A number."""


def test_values_that_python_calls_equal_are_told_apart() -> None:
    for value in (True, 1, 1.0, False, 0):
        source = to_source(replace(tiny_high.SPEC, "data.dataset", WrittenDataset(level=value)))
        read = executed(source).data.dataset.level
        assert (type(read), read) == (type(value), value)
    changed = replace(tiny_high.SPEC, "data.dataset", WrittenDataset(weights=-0.0))
    assert str(executed(to_source(changed)).data.dataset.weights) == "-0.0"


def test_classes_of_other_packages_are_imported_from_their_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, tag in (("zeta_optim", "zeta"), ("alpha_optim", "alpha")):
        (tmp_path / f"{name}.py").write_text(
            "import enum\n"
            "from mm_config.schema.decorator import spec\nfrom mm_config.schema.fields import field\n"
            "from mm_config.specs.kinds import OptimizerSpec\n"
            "class Outer:\n"
            "    class Kind(enum.Enum):\n"
            "        FAST = 'fast'\n"
            "        SLOW = 'slow'\n"
            f"@spec('{tag}-adamw')\n"
            "class AdamWSpec(OptimizerSpec):\n"
            "    'Another AdamW.'\n"
            "    lr: float = field(default=1.0)\n"
            "    max_grad_norm: float = field(default=1.0)\n"
            "    kind: Outer.Kind = Outer.Kind.SLOW\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    alpha: Any = __import__("alpha_optim")
    zeta: Any = __import__("zeta_optim")
    inner = replace(tiny_high.SPEC, "optim", zeta.AdamWSpec(kind=zeta.Outer.Kind.FAST))
    middle = replace(tiny_low.SPEC, {"optim": alpha.AdamWSpec(lr=2.0), "start_from": TrainedBy(spec=inner)})
    outer = replace(tiny_low.SPEC, "start_from", TrainedBy(spec=middle))
    source = assert_gives_back(outer)
    assert (
        "\n\nfrom alpha_optim import AdamWSpec as AdamWSpec_2"
        "\nfrom zeta_optim import AdamWSpec as AdamWSpec_3"
        "\nfrom zeta_optim import Outer\n\nfrom mm_config import main\n"
    ) in source
    assert "kind=Outer.Kind.FAST" in source
    (written := tmp_path / "written").mkdir()
    assert_ruff_changes_nothing(written, [source])


def test_classes_are_imported_from_the_public_face_that_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "faced_data"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from faced_data.clips import Hidden, Shown\n__all__ = ['Shown', 'Twin']\nclass Twin: ...\n"
    )
    lines = ["from mm_config.schema import spec", "from mm_config.specs import DatasetSpec"]
    for name in ("Shown", "Hidden", "Twin"):
        lines += [f"@spec('faced-{name.lower()}')", f"class {name}(DatasetSpec):", "    'Clips.'"]
    (package / "clips.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    clips: Any = __import__("faced_data.clips").clips
    for name, home in (("Shown", "faced_data"), ("Hidden", "faced_data.clips"), ("Twin", "faced_data.clips")):
        source = assert_gives_back(replace(tiny_high.SPEC, "data.dataset", getattr(clips, name)()))
        assert (
            f"\nfrom {home} import {name}\n\nfrom mm_config import main\nfrom mm_config.specs import"
            in source
        )


def test_a_class_that_cannot_be_imported_is_told() -> None:
    @spec("local-optim")
    class LocalOptim(OptimizerSpec):
        """An optimizer inside a function."""

        lr: float = field(default=1.0)
        max_grad_norm: float = field(default=1.0)

    script = types.ModuleType("my_script")
    exec(
        "from mm_config.schema.decorator import spec\nfrom mm_config.specs.kinds import DatasetSpec\n"
        "@spec('script-dataset')\nclass Clips(DatasetSpec):\n    'Clips.'\n",
        vars(script),
    )
    value = replace(tiny_high.SPEC, {"optim": LocalOptim(), "data.dataset": script.__dict__["Clips"]()})
    with pytest.raises(UserError) as caught:
        to_source(replace(tiny_low.SPEC, "start_from", TrainedBy(spec=value)))
    first, second = caught.value.problems
    assert first.path == "spec.start_from.spec.data.dataset"
    assert first.message.startswith(
        "Clips is defined in the script my_script, which an experiment file can't"
    )
    assert second.path == "spec.start_from.spec.optim"
    assert "test_a_class_that_cannot_be_imported_is_told() of " in second.message


def test_a_script_that_shows_its_own_class_is_told(tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text(
        "from experiments import tiny_high\n"
        "from mm_config import main, replace\n"
        "from mm_config.schema.decorator import spec\n"
        "from mm_config.stored.source import to_source\n"
        "from mm_config.specs.kinds import DatasetSpec\n"
        "@spec('own-dataset')\n"
        "class Own(DatasetSpec):\n"
        "    'Clips.'\n"
        "to_source(replace(tiny_high.SPEC, 'data.dataset', Own()))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "spec.data.dataset: Own is defined in the script that runs, which an experiment" in done.stderr
    assert len(done.stderr.splitlines()) == 1
