"""What is typed becomes a spec, or one line per mistake with the field's canonical path."""

from __future__ import annotations

import pytest

from experiments import tiny, tiny_high
from mm_config import replace
from mm_config.cli.flags import is_settable
from mm_config.cli.parse import overridden
from mm_config.cli.scan import Option, scan
from mm_config.schema.errors import SpecError
from mm_config.schema.evolve import get, leaves
from mm_config.schema.root import RootSpec, aliases_of
from mm_config.specs.data import Reader
from mm_config.specs.optim import Decay

HIGH = replace(tiny_high.SPEC, {"model.hidden_size": 192, "schedule.warmup_steps": 1})
SPECS = (tiny_high.SPEC, tiny.SPEC)


def parsed(spec: RootSpec, *argv: str) -> RootSpec:
    line = scan(argv, ())
    return overridden(spec, line.fields, line.problems, ["--runs-dir", "--dry-run"])


def mistakes(spec: RootSpec, *argv: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parsed(spec, *argv)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("argv", "path", "value"),
    [
        (["--spec.optim.lr", "3e-4"], "optim.lr", 3e-4),
        (["--spec.optim.lr=3e-4"], "optim.lr", 3e-4),
        (["--spec.lr", "3e-4"], "optim.lr", 3e-4),
        (["--spec.steps", "1_000"], "schedule.steps", 1000),
        (["--spec.batch-size", "8"], "data.batch_size", 8),
        (["--spec.schedule.warmup-steps", "0"], "schedule.warmup_steps", 0),
        (["--spec.seed", str(2**63)], "seed", 2**63),
        (["--spec.optim.betas", "0.8", "0.9"], "optim.betas", (0.8, 0.9)),
        (["--spec.model.patch_size", "1", "2", "2"], "model.patch_size", (1, 2, 2)),
        (["--spec.fsdp.wrap", "blocks.*"], "fsdp.wrap", ("blocks.*",)),
        (["--spec.fsdp.wrap"], "fsdp.wrap", ()),
        (["--spec.schedule.decay", "linear"], "schedule.decay", Decay.LINEAR),
        (["--spec.data.reader", "decord"], "data.reader", Reader.DECORD),
        (["--spec.micro-batch-size", "4"], "runtime.micro_batch_size", 4),
        (["--spec.micro-batch-size", "None"], "runtime.micro_batch_size", None),
        (["--spec.runtime.build_missing"], "runtime.build_missing", True),
        (["--spec.runtime.build-missing", "True"], "runtime.build_missing", True),
        (["--spec.fsdp.no_reshard_after_forward"], "fsdp.reshard_after_forward", False),
        (["--spec.fsdp.reshard-after-forward=False"], "fsdp.reshard_after_forward", False),
    ],
)
def test_a_flag_sets_its_field_and_nothing_else(argv: list[str], path: str, value: object) -> None:
    assert parsed(tiny_high.SPEC, *argv) == replace(tiny_high.SPEC, path, value)


def test_fields_of_a_spec_that_enters_by_its_hash_can_be_set() -> None:
    path = "high_noise.spec.optim.lr"
    assert parsed(tiny.SPEC, f"--spec.{path}", "1e-4") == replace(tiny.SPEC, path, 1e-4)


def test_an_option_of_one_dash_is_no_value_and_a_negative_number_is_no_option() -> None:
    number = Option("-n", "How many.", "N", read=int)
    line = scan(["target", "--spec.lr", "-3e-4", "-n", "4"], (number,))
    assert (line.words, line.value(number)) == (("target",), 4)
    assert [(given.flag, given.words) for given in line.fields] == [("--spec.lr", ("-3e-4",))]
    assert scan(["target", "-n", "4"], ()).words == ("target", "-n", "4")


def test_lists_of_text_and_of_numbers() -> None:
    changed = parsed(tiny.SPEC, "--spec.prompts", "a cat", "-a dog", "--spec.seeds", "1", "2", "3")
    assert get(changed, "samples.prompts") == ("a cat", "-a dog")
    assert get(changed, "samples.seeds") == (1, 2, 3)
    assert get(parsed(tiny.SPEC, "--spec.prompts=--odd"), "samples.prompts") == ("--odd",)


def test_without_flags_the_spec_is_the_same() -> None:
    assert parsed(tiny.SPEC) is tiny.SPEC


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--spec.lrr", "1"], "--spec.lrr: unknown flag; did you mean --spec.lr (--spec.optim.lr)?"),
        (["--spec.optm.lr", "1"], "--spec.optm.lr: unknown flag; did you mean --spec.optim.lr?"),
        (
            ["--spec.max_gradnorm", "1"],
            "--spec.max_gradnorm: unknown flag; did you mean --spec.optim.max_grad_norm?",
        ),
        (
            ["--spec.model.heads", "1"],
            "--spec.model.heads: unknown flag; did you mean --spec.model.num_attention_heads?",
        ),
        (["--lr", "1"], "--lr: unknown flag; did you mean --spec.lr (--spec.optim.lr)?"),
        (["--dryrun"], "--dryrun: unknown flag; did you mean --dry-run?"),
        (["--spec.zzz", "1"], "--spec.zzz: unknown flag; see --help"),
        (
            ["--spec.runtime.npu.task-queue", "2"],
            "--spec.runtime.npu.task-queue: spec.runtime.npu is None here; it holds a NpuSpec or None, which "
            "is chosen in the experiment's Python",
        ),
        (
            ["--spec.schedule", "1"],
            "--spec.schedule: is a group of fields, not a field: --spec.schedule.steps, "
            "--spec.schedule.warmup_steps, --spec.schedule.decay, --spec.schedule.final_ratio, ...",
        ),
        (["--spec.lr", "abc"], "spec.optim.lr: expected float, got 'abc'"),
        (["--spec.steps", "1e3"], "spec.schedule.steps: expected int, got '1e3'"),
        (["--spec.steps", "1.5"], "spec.schedule.steps: expected int, got '1.5'"),
        (["--spec.micro-batch-size", "x"], "spec.runtime.micro_batch_size: expected int or None, got 'x'"),
        (["--spec.lr", "1", "2"], "spec.optim.lr: expected float, got '1 2'"),
        (["--spec.lr"], "spec.optim.lr: needs a value (FLOAT)"),
        (["--spec.lr", "nan"], "spec.optim.lr: must be a finite number, got nan"),
        (["--spec.lr", "inf"], "spec.optim.lr: must be a finite number, got inf"),
        (["--spec.lr", "-1"], "spec.optim.lr: must be > 0, got -1.0"),
        (["--spec.data.caption_dropout", "1"], "spec.data.caption_dropout: must be < 1, got 1.0"),
        (["--spec.optim.betas", "0.9", "1.5"], "spec.optim.betas.1: must be < 1, got 1.5"),
        (["--spec.optim.betas", "0.9"], "spec.optim.betas: expected tuple of 2 (float, float), got '0.9'"),
        (
            ["--spec.data.reader", "pyavv"],
            "spec.data.reader: expected one of pyav, decord, torchcodec, got 'pyavv'; did you mean pyav?",
        ),
        (
            ["--spec.runtime.build_missing", "maybe"],
            "spec.runtime.build_missing: expected one of True, False, got 'maybe'",
        ),
        (
            ["--spec.runtime.no_build_missing", "True"],
            "spec.runtime.build_missing: its `no` form takes no value, got 'True'",
        ),
        (["--spec.lr", "1", "--spec.lr", "2"], "spec.optim.lr: --spec.lr is given twice"),
        (
            ["--spec.lr", "1", "--spec.optim.lr", "1"],
            "spec.optim.lr: is given twice, as --spec.lr and as --spec.optim.lr; give one of them",
        ),
        (
            ["--spec.model.num_attention_heads", "7"],
            "spec.model.num_attention_heads: 7 heads do not divide hidden_size 192; nearest that do: 6 or 8",
        ),
        (
            ["--spec.num_frames", "16"],
            "spec.data.num_frames: 16 frames are not of the form 4k+1; nearest: 13 or 17",
        ),
    ],
)
def test_a_mistake_is_one_line(argv: list[str], message: str) -> None:
    assert mistakes(HIGH, *argv) == [message]


def test_a_choice_of_class_is_made_in_python() -> None:
    single = replace(tiny.SPEC, {"low_noise": None, "boundary": None})
    assert "spec.low_noise: holds a Weights or None, which is chosen in the experiment's Python" in mistakes(
        single, "--spec.low_noise", "None"
    )


def test_all_mistakes_are_told_at_once() -> None:
    told = mistakes(
        HIGH,
        *(
            "--spec.lrr",
            "1",
            "--spec.steps",
            "many",
            "--spec.lr",
            "-1",
            "--spec.seed",
            "1",
            "--spec.seed",
            "2",
        ),
        *("--spec.model.num-attention-heads", "7", "--spec.num-frames", "16"),
    )
    assert told == [
        "--spec.lrr: unknown flag; did you mean --spec.lr (--spec.optim.lr)?",
        "spec.schedule.steps: expected int, got 'many'",
        "spec.optim.lr: must be > 0, got -1.0",
        "spec.seed: --spec.seed is given twice",
        "spec.data.num_frames: 16 frames are not of the form 4k+1; nearest: 13 or 17",
        "spec.model.num_attention_heads: 7 heads do not divide hidden_size 192; nearest that do: 6 or 8",
    ]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_every_alias_resolves_and_shadows_nothing(spec: RootSpec) -> None:
    paths = {leaf.path for leaf in leaves(spec)}
    aliases = aliases_of(type(spec))
    assert aliases
    assert set(aliases.values()) <= paths
    sections = {path.split(".")[0] for path in paths}
    assert not set(aliases) & (paths | sections)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_every_leaf_can_be_typed_as_it_is(spec: RootSpec) -> None:
    """Each leaf's own value, given as text, gives the same spec."""
    for leaf in leaves(spec, by_hash=False):
        if not is_settable(leaf.type):
            continue
        value = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
        words = [str(getattr(item, "value", item)) for item in value]
        flag = [f"--spec.{leaf.path}={words[0]}"] if len(words) == 1 else [f"--spec.{leaf.path}", *words]
        assert parsed(spec, *flag) == spec, leaf.path
