"""Nothing that an inference spec says is ignored, and what is refused is known without torch."""

import subprocess
import sys

import pytest

from experiments import tiny, wan21_flf2v_14b_infer, wan21_i2v_14b_infer, wan22_i2v, wan22_ti2v_5b_infer
from mm_config import replace
from mm_config.rules.carried_out import refusals
from mm_config.specs import InferSpec, SparseAttentionSpec
from mm_config.specs.diffusion import Solver
from mm_infer.samplers import SOLVERS


def test_every_solver_has_a_step() -> None:
    assert set(SOLVERS) == set(Solver)
    for solver in Solver:
        assert refusals(replace(tiny.SPEC, "sampler.solver", solver)) == []


def test_a_spec_is_refused_before_torch_is_imported() -> None:
    program = (
        "import sys; from experiments.wan22_i2v import SPEC\n"
        "from mm_config import replace\n"
        "from mm_config.rules.carried_out import refusals\n"
        "from mm_config.specs import FeatureCacheSpec\n"
        "changed = replace(SPEC, 'feature_cache', FeatureCacheSpec())\n"
        "print([problem.path for problem in refusals(changed)], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['spec.feature_cache.skipped'] False\n"


def test_keys_that_go_round_a_ring_are_not_left_out() -> None:
    sparse = replace(wan22_i2v.SPEC, "sparse_attention", SparseAttentionSpec())
    shared = {"runtime.parallel.ulysses": 2, "runtime.parallel.tensor": 2, "runtime.compile.enabled": True}
    assert refusals(replace(sparse, shared)) == []
    (problem,) = refusals(replace(sparse, {**shared, "runtime.parallel.ring": 2}))
    assert problem.path == "spec.runtime.parallel.ring" and problem.message.endswith("; ulysses can")


@pytest.mark.parametrize(
    "spec", [wan21_i2v_14b_infer.SPEC, wan21_flf2v_14b_infer.SPEC, wan22_i2v.SPEC, wan22_ti2v_5b_infer.SPEC]
)
def test_generation_from_given_frames_is_carried_out(spec: InferSpec) -> None:
    assert refusals(spec) == []
