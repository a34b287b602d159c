"""Weights: drawn, released, or made by a training that is looked up and, where allowed, run first."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import experiments.tiny_high
from mm_config import replace, spec_hash
from mm_config.content import Input
from mm_config.options.locations import load_locations
from mm_config.options.run_options import RunOptions
from mm_config.running.trained_by import resolve_weights
from mm_config.runs.folder import open_run
from mm_config.runs.inputs import write_inputs
from mm_config.schema.errors import UserError
from mm_config.specs.weights import RandomWeights, ReleasedWeights, TrainedBy

SPEC = experiments.tiny_high.SPEC
TRAINED = TrainedBy(spec=SPEC)


def train(runs_dir: Path, step: int) -> Path:
    """What a training leaves behind: a whole checkpoint that its result names."""
    run = open_run(SPEC, RunOptions(runs_dir))
    checkpoint = run.checkpoints_dir / f"step-{step:08d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    run.finish({"checkpoint": f"checkpoints/{checkpoint.name}"})
    return checkpoint


def test_random_weights_are_themselves(tmp_path: Path) -> None:
    weights = RandomWeights(seed=3)
    assert resolve_weights(weights, RunOptions(tmp_path), build_missing=False) is weights


def test_released_weights_lie_where_the_location_table_says(tmp_path: Path) -> None:
    (tmp_path / "wan" / "transformer_2").mkdir(parents=True)
    options = RunOptions(tmp_path, locations=load_locations([f"Wan={tmp_path / 'wan'}"], start=tmp_path))
    found = resolve_weights(ReleasedWeights(name="Wan", subfolder="transformer_2"), options, False)
    assert found == tmp_path / "wan" / "transformer_2"
    with pytest.raises(UserError, match=r"spec\.low_noise: the release Wan has no .*transformer_3"):
        resolve_weights(
            ReleasedWeights(name="Wan", subfolder="transformer_3"), options, False, "spec.low_noise"
        )
    with pytest.raises(UserError, match=r"spec\.high_noise: no location is named 'Other'"):
        resolve_weights(ReleasedWeights(name="Other"), options, False)


def test_the_newest_whole_final_checkpoint_is_taken(tmp_path: Path) -> None:
    older, newer = train(tmp_path, 100), train(tmp_path, 100)
    earlier_step = newer.with_name("step-00000050")
    earlier_step.mkdir()
    (earlier_step / "manifest.json").write_text("{}")
    assert resolve_weights(TRAINED, RunOptions(tmp_path), False) == newer
    (newer / "manifest.json").unlink()
    assert resolve_weights(TRAINED, RunOptions(tmp_path), False) == older


def test_a_repetition_takes_the_run_that_the_repeated_one_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newer = train(tmp_path, 100), train(tmp_path, 100)
    assert resolve_weights(TRAINED, RunOptions(tmp_path), False) == newer
    told = f"spec.high_noise: 2 finished runs made these weights; {newer.parents[1]} is taken, the newest: "
    assert capsys.readouterr().out == f"{told}what they were made of is not recorded\n"
    # As results named it before inputs were recorded, in a runs folder that was moved since.
    run = open_run(replace(SPEC, "name", "videos"), RunOptions(tmp_path / "other"))
    taken = Path("elsewhere", *older.parts[-4:-2])
    result = run.finish({"experts": {"high_noise": {"run_dir": str(taken)}, "low_noise": {"seed": 1}}})
    repeating = RunOptions(tmp_path, repeats=run.path)
    assert resolve_weights(TRAINED, repeating, False) == older
    assert resolve_weights(TRAINED, repeating, False, "spec.low_noise") == newer
    # As inputs.json names it.
    taken_now = {
        "spec.high_noise": Input(digest="a" * 64, kind="trained-by", details={"run_dir": str(taken)})
    }
    write_inputs(run.path, spec_hash(SPEC), taken_now)
    result.unlink()
    assert resolve_weights(TRAINED, repeating, False) == older
    (older / "manifest.json").unlink()
    capsys.readouterr()
    assert resolve_weights(TRAINED, repeating, False) == newer
    assert (
        capsys.readouterr().out == f"spec.high_noise: the weights that {run.path} took are gone ({taken})\n"
    )


def test_a_label_does_not_matter_and_a_setting_does(tmp_path: Path) -> None:
    checkpoint = train(tmp_path, 1)
    relabelled = TrainedBy(spec=replace(SPEC, "name", "another label"))
    assert resolve_weights(relabelled, RunOptions(tmp_path), False) == checkpoint
    with pytest.raises(UserError, match="no finished run"):
        resolve_weights(TrainedBy(spec=replace(SPEC, "seed", 5)), RunOptions(tmp_path), False)


def test_missing_weights_name_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        resolve_weights(TRAINED, RunOptions(tmp_path), False)
    (problem,) = caught.value.problems
    assert problem.path == "spec.high_noise"
    assert f"no finished run of tiny_high (spec_hash {spec_hash(SPEC)[:12]})" in problem.message
    assert "run `python experiments/tiny_high.py`" in problem.message
    assert "--spec.runtime.build_missing" in problem.message


def test_missing_weights_of_a_spec_that_no_experiment_holds_name_its_hash(tmp_path: Path) -> None:
    unknown = replace(SPEC, "seed", 5)
    with pytest.raises(UserError, match=f"run the experiment with spec_hash {spec_hash(unknown)[:12]}"):
        resolve_weights(TrainedBy(spec=unknown), RunOptions(tmp_path), False)


PLUGIN = """
from mm_config.options.run_options import RunOptions, RunOutcome
from mm_config.runs.folder import open_run
from mm_config.schema.decorator import spec
from mm_config.schema.fields import field
from mm_config.schema.root import RootSpec

@spec("constant-training")
class ConstantTraining(RootSpec):
    "Trains nothing: its checkpoint is a number."
    name: str = ""
    number: int = field(ge=0)

def run(spec, options):
    assert options.resume is None
    run = open_run(spec, options)
    checkpoint = run.checkpoints_dir / "step-00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text(str(spec.number))
    return RunOutcome(run.path, run.finish({"checkpoint": "checkpoints/step-00000001"}))
"""

BUILD = """
import json, pathlib, sys
from constant_training import ConstantTraining
from mm_config.options.run_options import RunOptions
from mm_config.specs.weights import TrainedBy
from mm_config.running.trained_by import resolve_weights
options = RunOptions(pathlib.Path(sys.argv[1]), resume="latest")
weights = TrainedBy(spec=ConstantTraining(name="constant", number=7))
print(json.dumps([str(resolve_weights(weights, options, build_missing=True)) for _ in range(2)]))
"""


def test_missing_weights_are_built_once_by_the_runner_that_is_installed(tmp_path: Path) -> None:
    site, runs_dir = tmp_path / "site", tmp_path / "runs"
    metadata = site / "constant_training-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "constant_training.py").write_text(PLUGIN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: constant-training\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mm.runners]\nconstant-training = constant_training:run\n")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(runs_dir)],
        env={"PYTHONPATH": str(site), "HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    first, second = json.loads(done.stdout)
    assert first == second
    assert (Path(first) / "manifest.json").read_text() == "7"
    assert len(list(runs_dir.glob("constant/*"))) == 1
