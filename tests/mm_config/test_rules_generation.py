"""Rules on generation: the sampler, guidance, distilled weights, and shortcuts."""

import pytest

from mm_config import replace
from mm_config.families import wan21
from mm_config.specs.diffusion import SigmaTable, Solver
from mm_config.specs.dtype import Dtype
from mm_config.specs.parallel import AttentionImpl
from mm_config.specs.serving import GuidanceMode, Residency, SparseAttentionSpec, SparsePattern
from mm_config.specs.weights import TrainedBy
from tests.mm_config.breaking import INFER, WAN_DISTILLED, WAN_FLF2V, WAN_SINGLE, WAN_T2V, found, only


@pytest.mark.parametrize("solver", list(Solver))
@pytest.mark.parametrize("table", [SigmaTable.WAN_OFFICIAL, SigmaTable.DIFFUSERS, SigmaTable.FULL_RANGE])
def test_every_solver_walks_every_even_table(solver: Solver, table: SigmaTable) -> None:
    assert found(WAN_T2V, {"sampler.solver": solver, "sampler.sigmas": table}) == {}


def test_timesteps_are_listed_exactly_where_the_table_is_listed() -> None:
    listed = {"sampler.sigmas": SigmaTable.LISTED, "sampler.solver": Solver.EULER}
    only(WAN_T2V, listed, "sampler.timesteps", "is empty, but sigmas is listed", "1000 750 500 250")
    given = {"sampler.timesteps": (1000, 500)}
    only(WAN_T2V, given, "sampler.timesteps", "which only sigmas = listed uses; leave it at ()")
    assert found(WAN_T2V, {**listed, **given, "sampler.steps": 2}) == {}


def test_listed_timesteps_are_as_many_as_the_steps_and_fall() -> None:
    only(WAN_DISTILLED, {"sampler.steps": 8}, "sampler.steps", "is 8, but timesteps lists 4")
    flat = {"sampler.timesteps": (1000, 750, 750, 250)}
    only(WAN_DISTILLED, flat, "sampler.timesteps.2", "is 750, not below 750")
    risen = {"sampler.timesteps": (750, 1000, 500, 600)}
    assert found(WAN_DISTILLED, risen).keys() == {"spec.sampler.timesteps.1", "spec.sampler.timesteps.3"}


@pytest.mark.parametrize("solver", [Solver.UNIPC, Solver.DPMPP_2M])
def test_listed_timesteps_are_walked_by_eulers_method(solver: Solver) -> None:
    only(WAN_DISTILLED, {"sampler.solver": solver}, "sampler.solver", f"is {solver.value}", "choose euler")


def test_distilled_weights_have_their_guidance_built_in() -> None:
    assert found(WAN_DISTILLED, {}) == {}
    said = ("is 3.5, but spec.distilled is True", "set it to 1.0")
    for name in ("sampler.guidance_high_noise", "sampler.guidance_low_noise"):
        only(WAN_DISTILLED, {name: 3.5}, name, *said)
    single = {"distilled": True, "sampler.guidance_high_noise": 1.0, "sampler.guidance_low_noise": 3.5}
    assert found(WAN_SINGLE, single) == {}


def test_two_ranks_for_guidance_need_some() -> None:
    parallel = {"runtime.guidance": GuidanceMode.PARALLEL}
    assert found(WAN_T2V, parallel) == {}
    assert found(WAN_T2V, {**parallel, "sampler.guidance_high_noise": 1.0}) == {}
    only(
        WAN_DISTILLED,
        parallel,
        "runtime.guidance",
        "no guidance of spec.sampler is above 1",
        "choose batched",
    )
    only(WAN_SINGLE, {**parallel, "sampler.guidance_high_noise": 1.0}, "runtime.guidance", "choose batched")


def test_sparse_attention_begins_before_the_end() -> None:
    path = "sparse_attention"
    assert found(WAN_T2V, {path: SparseAttentionSpec(dense_steps=40, dense_layers=40)}) == {}
    late = SparseAttentionSpec(dense_steps=41, dense_layers=41)
    assert found(WAN_T2V, {path: late}) == {
        f"spec.{path}.dense_steps": "is 41, above spec.sampler.steps 40",
        f"spec.{path}.dense_layers": "is 41, above spec.model.num_layers 40",
    }
    local = SparseAttentionSpec(pattern=SparsePattern.LOCAL, decay_factor=0.5)
    only(WAN_T2V, {path: local}, f"{path}.decay_factor", "only pattern = radial uses; leave it at 1.0")
    only(WAN_T2V, {path: SparseAttentionSpec(window=9)}, f"{path}.window", "only pattern = local uses")


def test_tokens_make_some_blocks_of_sparse_attention() -> None:
    """81 frames of 832x480 are 21 latent frames of 104x60, in patches of 2x2 21 x 52 x 30 tokens: 32760."""
    path, size = "sparse_attention", "is {}, but 81 frames of 832x480 have 32760 tokens: one block leaves"
    for tokens in (32760, 10**6):
        spec = SparseAttentionSpec(block_size=tokens)
        only(WAN_T2V, {path: spec}, f"{path}.block_size", size.format(tokens))
    assert found(WAN_T2V, {path: SparseAttentionSpec(block_size=32759)}) == {}
    assert found(WAN_T2V, {path: SparseAttentionSpec(block_size=8)}) == {}
    only(WAN_T2V, {path: SparseAttentionSpec(block_size=7)}, f"{path}.block_size", "4680 blocks, above 4096")


def test_only_layerwise_residency_brings_single_blocks() -> None:
    changes = {"runtime.residency.share": 0.5, "runtime.residency.prefetch": 2}
    assert found(WAN_T2V, changes).keys() == {
        "spec.runtime.residency.share",
        "spec.runtime.residency.prefetch",
    }
    assert found(WAN_T2V, {**changes, "runtime.residency.experts": Residency.LAYERWISE}) == {}


def test_ranks_share_an_autoencoder_that_has_a_network() -> None:
    alone = {"runtime.parallel.autoencoder": True}
    shared = {**alone, "runtime.parallel.ulysses": 2}
    only(INFER, shared, "runtime.parallel.autoencoder", "spec.autoencoder has no network that takes them")
    for tiling in (False, True):
        assert found(WAN_T2V, {**shared, "autoencoder.tiling": tiling}) == {}
        cut = {**alone, "autoencoder.tiling": tiling}
        only(WAN_T2V, cut, "runtime.parallel.autoencoder", "make one video, but there is one")
        assert found(WAN_T2V, {**cut, "runtime.guidance": GuidanceMode.PARALLEL}) == {}


def test_an_autoencoder_is_compiled_with_the_networks_and_where_a_graph_holds_it() -> None:
    field, both = "runtime.compile_autoencoder", {"runtime.compile_autoencoder": True}
    only(WAN_T2V, both, field, "but spec.runtime.compile.enabled is False; turn it on, or this off")
    compiled = {**both, "runtime.compile.enabled": True}
    assert found(WAN_T2V, compiled) == {}
    only(INFER, compiled, field, "but spec.autoencoder has no network; turn this off")
    shared = {**compiled, "runtime.parallel.autoencoder": True, "runtime.parallel.ulysses": 2}
    only(WAN_T2V, shared, field, "hands caches from rank to rank between convolutions")
    assert found(WAN_T2V, {**shared, "autoencoder.tiling": True}) == {}


def test_ranks_share_weights_that_several_hold() -> None:
    shared = {"runtime.parallel.fsdp": True}
    only(WAN_T2V, shared, "runtime.parallel.fsdp", "raise ulysses or ring, or turn this off")
    only(
        WAN_T2V,
        {**shared, "runtime.parallel.tensor": 2},
        "runtime.parallel.fsdp",
        "no two hold the same",
    )
    for more in ({"runtime.parallel.ring": 2}, {"runtime.guidance": GuidanceMode.PARALLEL}):
        assert found(WAN_T2V, {**shared, **more}) == {}


def test_attention_fits_the_device_and_the_format() -> None:
    flash = {"runtime.attention": AttentionImpl.FLASH_3}
    assert found(WAN_T2V, flash) == {}
    only(
        WAN_T2V,
        {**flash, "dtype": Dtype.FLOAT32},
        "runtime.attention",
        "16-bit values, but spec.dtype is float32",
    )
    only(
        WAN_T2V,
        {**flash, "runtime.device": "npu"},
        "runtime.attention",
        "which is for cuda, but device is npu",
    )


def test_trained_weights_saw_the_same_image_features() -> None:
    spec = wan21.FLF2V_14B.infer(high_noise=TrainedBy(spec=WAN_FLF2V))
    assert found(spec, {}) == {}
    other = TrainedBy(spec=replace(WAN_FLF2V, "image_encoder.d_ff", 1024))
    assert found(spec, {"high_noise": other}) == {
        "spec.high_noise.spec.image_encoder.d_ff": "was trained with 1024, but spec.image_encoder.d_ff "
        "is 5120"
    }
