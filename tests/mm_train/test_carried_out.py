"""Nothing that a training spec says is ignored: what training can't do yet is refused."""

import re

import pytest

import mm_train
from experiments import (
    tiny_high,
    wan21_flf2v_14b,
    wan21_i2v_14b,
    wan22_high,
    wan22_i2v_high,
    wan22_ti2v_5b,
)
from mm_config import replace
from mm_config.cli.main import main
from mm_config.options.run_options import RunOptions
from mm_config.rules.carried_out import refusals
from mm_config.schema.errors import UserError
from mm_config.schema.evolve import get
from mm_config.schema.fields import ABSENT, info_of, spec_fields
from mm_config.specs.data import DataSpec
from mm_config.specs.datasets import FolderSpec, IndexSpec, ManifestSpec, MixtureSpec, ShapesSpec
from mm_config.specs.diffusion import TimestepScope
from mm_config.specs.parallel import AttentionImpl
from mm_config.specs.train import TrainSpec
from mm_train.carried_out import CARRIED_OUT, check_carried_out


def refused(spec: TrainSpec) -> list[str]:
    with pytest.raises(UserError) as caught:
        check_carried_out(spec)
    return [str(problem) for problem in caught.value.problems]


OF_BIRTH = {
    *("parallel.ring", "parallel.tensor", "parallel.ulysses"),
    *("recompute.mode", "recompute.modules", "recompute.offload"),
}
"""Fields of a class that is a later field's value, which are named one by one."""


def test_every_field_that_training_names_was_added_after_its_classes_birth() -> None:
    shapes = {f"data.dataset.{name}" for name in ("caption", "colours", "start")}
    of_other_classes = {"data.dataset.piece_count", "start_from.average"} | shapes
    spec = wan22_high.SPEC
    for path in CARRIED_OUT.fields - OF_BIRTH - of_other_classes:
        owner, _, name = path.rpartition(".")
        inside = get(spec, owner) if owner else spec
        attributes = {attribute.name: attribute for attribute in spec_fields(type(inside))}
        assert info_of(attributes[name]).neutral is not ABSENT, path


def test_no_other_field_of_the_data_and_its_datasets_is_refused() -> None:
    datasets = (ManifestSpec, IndexSpec, FolderSpec, ShapesSpec, MixtureSpec)
    owners = [("data.", DataSpec), *(("data.dataset.", dataset) for dataset in datasets)]
    later = {
        f"{path}{attribute.name}"
        for path, owner in owners
        for attribute in spec_fields(owner)
        if info_of(attribute).neutral is not ABSENT
    }
    assert not later - CARRIED_OUT.fields and "data.dataset.piece_count" in later


def test_every_wan_experiment_can_be_trained() -> None:
    for experiment in (wan21_flf2v_14b, wan21_i2v_14b, wan22_high, wan22_i2v_high, wan22_ti2v_5b):
        check_carried_out(experiment.SPEC)


def test_all_that_training_cannot_do_is_named_at_once(small: TrainSpec) -> None:
    changes = {
        "diffusion.timesteps_per": TimestepScope.MICRO_BATCH,
        "runtime.attention": AttentionImpl.CUDNN,
    }
    lines = refused(replace(small, {**changes, "runtime.deterministic": True}))
    assert sorted(line.partition(":")[0] for line in lines) == sorted(f"spec.{path}" for path in changes)
    assert any("is micro_batch, whose size belongs to execution" in line for line in lines)


@pytest.mark.parametrize("attention", [AttentionImpl.CUDNN, AttentionImpl.FLASH_2, AttentionImpl.FLASH_3])
def test_a_ring_is_refused_with_attention_that_gives_no_log_sum_exp(
    small: TrainSpec, attention: AttentionImpl
) -> None:
    spec = replace(small, "runtime.attention", attention)
    (line,) = refused(replace(spec, {"parallel.ring": 2}))
    assert line == (
        f"spec.runtime.attention: is {attention.value}, which gives no log-sum-exp here, by which a ring "
        "merges blocks of keys; auto, npu, reference and sdpa do"
    )
    check_carried_out(replace(spec, "parallel.ulysses", 2))


def test_a_run_is_refused_before_anything_is_made(small: TrainSpec, options: RunOptions) -> None:
    with pytest.raises(UserError, match=r"spec\.diffusion\.timesteps_per: is micro_batch"):
        mm_train.train(replace(small, "diffusion.timesteps_per", TimestepScope.MICRO_BATCH), options)
    assert not (options.runs_dir / small.name).exists()


def test_the_help_marks_exactly_the_switches_that_a_run_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    base = replace(tiny_high.SPEC, "name", "tiny")
    main(base, ["tiny.py", "--help"])
    page = re.sub(r",\n +", ", ", capsys.readouterr().out)
    switches = re.findall(
        r"^  (--spec\.[\w.]+)(?:, --spec\.[\w.]+)+( +\(not carried out yet\))?$", page, re.MULTILINE
    )
    assert not all(mark for _, mark in switches)
    for flag, mark in switches:
        path = flag.removeprefix("--spec.")
        problems = refusals(replace(base, path, not get(base, path)))
        assert bool(mark) == any(problem.path == f"spec.{path}" for problem in problems), path
