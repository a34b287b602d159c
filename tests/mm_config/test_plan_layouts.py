"""The search for layouts: complete, legal, in order, quick, and of what the runner carries out."""

import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from mm_config import replace, rules
from mm_config.cli.app import app
from mm_config.cli.main import main
from mm_config.families import wan21
from mm_config.planning.layouts import search
from mm_config.planning.plan import plan
from mm_config.specs.monitoring import ProfilerSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.train import TrainSpec
from mm_config.stored import files
from tests.mm_config.test_plan_devices import TOO_LARGE, asked, training


def divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0]


def every_layout(spec: TrainSpec, ranks: int) -> list[dict[str, Any]]:
    """All combinations that the rules let pass, each in the one way in which a search says it."""
    found = []
    for ulysses, ring, tensor, shard in product(*[divisors(ranks)] * 4):
        if ranks % tensor:
            continue
        values = {
            "parallel.ulysses": ulysses,
            "parallel.ring": ring,
            "parallel.tensor": tensor,
            "fsdp.shard_size": None if shard == ranks // tensor else shard,
        }
        if not rules.problems(replace(spec, values), ranks):
            found += [{**values, "recompute.mode": mode} for mode in Recompute]
    return found


@pytest.mark.usefixtures("all_is_carried_out")
def test_a_search_finds_what_trying_everything_finds() -> None:
    spec = training(wan21.T2V_1_3B, batch=4)
    fitting: list[tuple[float, int]] = []
    too_large = 0
    for values in every_layout(spec, 4):
        # A rank's clips; what sizes divide into them is what rules let pass.
        share = values["parallel.ulysses"] * values["parallel.ring"] * values["parallel.tensor"]
        sizes = [size for size in (4, 2, 1) if share % size == 0]
        tried = (replace(spec, {**values, "runtime.micro_batch_size": size}) for size in sizes)
        plans = (plan(one, 4, "a100-40gb") for one in tried)
        best = next((found for found in plans if found.fits), None)
        too_large += best is None
        if best is not None and best.timing is not None:
            fitting.append((best.timing.predicted, best.memory.total))
    found = search(spec, 4, "a100-40gb")
    assert (found.fitting, found.too_large) == (len(fitting), too_large)
    assert min(found.fitting, found.too_large) > 9
    fitting.sort(key=lambda one: (float(f"{one[0]:.3g}"), one[1]))
    assert [(one.predicted_seconds, one.total_bytes_per_rank) for one in found.layouts] == fitting[
        : len(found.layouts)
    ]


@pytest.mark.usefixtures("all_is_carried_out")
def test_a_thousand_ranks_are_searched_within_ten_seconds() -> None:
    started = time.process_time()
    found = search(training(batch=1024), 1024, "h200")
    assert time.process_time() - started < 10
    assert found.fitting + found.too_large > 2_000


@pytest.mark.parametrize(("ranks", "device"), [(4, "h200"), (8, "h100")])
def test_what_a_search_lists_is_planned_and_run_as_it_is_typed(
    ranks: int, device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The flags are read by `mm plan`, which says the same, and by the experiment, which refuses nothing."""
    spec = replace(training(wan21.T2V_1_3B, batch=8), "name", "typed")
    files.dump(spec, tmp_path / "typed.json")
    words = (str(tmp_path / "typed.json"), "--world-size", str(ranks), "--device", device)
    found = asked(capsys, *words, "--search")
    assert found["layouts"] and found["fitting"] >= len(found["layouts"])
    for one in found["layouts"]:
        typed = one["flags"].split()
        planned = asked(capsys, *words, *typed)
        assert planned["fits"] is True
        for name in ("predicted_seconds", "exposed_seconds", "total_bytes_per_rank"):
            assert planned[name] == one[name]
        main(spec, ["typed.py", "--dry-run", "--world-size", str(ranks), *typed])
        assert f"on {ranks} ranks" in capsys.readouterr().out


@pytest.mark.parametrize(("root", "ranks", "device"), TOO_LARGE)
def test_what_is_suggested_is_what_the_runner_carries_out(
    root: Any, ranks: int, device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for one in plan(root, ranks, device).suggestions:
        typed = one.flags.split()
        world = () if "--world-size" in typed else ("--world-size", str(ranks))
        main(replace(root, "name", "typed"), ["typed.py", "--dry-run", *world, *typed])
        assert "dry run" in capsys.readouterr().out


def test_the_page_of_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.dump(replace(training(batch=8), "name", "large"), tmp_path / "large.json")
    target = str(tmp_path / "large.json")
    assert app(["plan", target, "--world-size", "8", "--search", "--efficiency", "0.4"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "layouts for 8 ranks of h200 at 40.0% MFU, fastest first"
    assert any("--spec.parallel.ring 2" in line for line in rest)
    assert "layouts fit" in rest[-1] and "are legal and do not fit" in rest[-1]


def test_where_nothing_is_legal_the_rules_say_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = ProfilerSpec(start_step=1, end_step=2, ranks=(9,))
    files.dump(replace(training(), {"name": "odd", "profiler": recorded}), tmp_path / "odd.json")
    assert app(["plan", str(tmp_path / "odd.json"), "--world-size", "4", "--search"]) == 2
    told = capsys.readouterr().err
    assert told == "spec.profiler.ranks.0: there is no rank 9: 4 ranks count from 0\n"
    assert app(["plan", "experiments/tiny.py", "--search"]) == 2
    assert capsys.readouterr().err == "only trainings are searched for layouts, got InferSpec\n"
