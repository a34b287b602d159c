"""Nothing that an inference spec says is ignored, and what is refused is known without torch."""

import subprocess
import sys

from experiments import tiny, wan22_i2v
from mm_config import replace
from mm_config.rules.carried_out import refusals
from mm_config.specs.diffusion import Solver
from mm_infer.carried_out import SOLVERS
from mm_infer.samplers import SOLVERS as STEPS


def test_the_solvers_that_are_not_refused_have_a_step() -> None:
    assert set(SOLVERS) == set(STEPS)
    (other,) = {str(problem) for problem in refusals(replace(tiny.SPEC, "sampler.solver", Solver.DPMPP_2M))}
    assert other.startswith("spec.sampler.solver: is ")


def test_a_spec_is_refused_before_torch_is_imported() -> None:
    program = (
        "import sys; from experiments.wan22_i2v import SPEC\n"
        "from mm_config.rules.carried_out import refusals\n"
        "print([problem.path for problem in refusals(SPEC)], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['spec.model.conditioning'] False\n"
    assert [problem.path for problem in refusals(wan22_i2v.SPEC)] == ["spec.model.conditioning"]
