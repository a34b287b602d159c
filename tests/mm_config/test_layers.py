"""Layers: what the weights fix, what the developer sets, what each request asks for."""

import hashlib
from typing import Any

import pytest

from experiments import tiny, tiny_high
from mm_config import dump, load, replace, spec_hash
from mm_config.schema.decorator import spec
from mm_config.schema.evolve import leaves
from mm_config.schema.fields import EXECUTION, SEMANTIC, Layer, field
from mm_config.schema.identity import EXACT_ROLES
from mm_config.schema.root import RootSpec
from mm_config.specs.diffusion import SamplerSpec, Solver
from mm_config.specs.requests import GenerationRequest, SamplesSpec
from mm_config.specs.weights import RandomWeights
from mm_config.stored.layers import layer_hashes, layers_of
from mm_config.stored.structuring import known_specs


def changed_layers(base: Any, changes: dict[str, Any], **options: Any) -> set[str]:
    before, after = layer_hashes(base, **options), layer_hashes(replace(base, changes), **options)
    return {layer for layer in before if before[layer] != after[layer]}


def test_every_spec_that_can_be_run_has_layers() -> None:
    roots = [cls for cls in known_specs().values() if issubclass(cls, RootSpec)]
    own = [cls for cls in roots if cls.__module__.startswith("mm_config.")]
    assert own
    assert all(map(layers_of, own))


def test_a_layers_hash_is_the_sha256_of_these_bytes() -> None:
    written = (
        b'{"kind":"generation-request","layer":"request","spec":'
        b'{"negative_prompt":"","prompt":"a cat","seed":"18446744073709551615"},"v":1}'
    )
    request = GenerationRequest(
        prompt="a cat", seed=2**64 - 1, negative_prompt="", negative_prompt_may_be_empty=False
    )
    assert layer_hashes(request) == {"request": hashlib.sha256(written).hexdigest()}


def test_inference_specs_that_share_weights_share_the_model_layer() -> None:
    for changes in (
        {"sampler": SamplerSpec(steps=3, shift=1.0, solver=Solver.EULER)},
        {"num_frames": 5, "height": 32, "width": 32, "fps": 24},
        {"sampler.guidance_low_noise": 9.0},
    ):
        assert changed_layers(tiny.SPEC, changes) == {"inference"}
    assert changed_layers(tiny.SPEC, {"samples": SamplesSpec(prompts=("a dog",))}) == {"request"}
    assert changed_layers(tiny.SPEC, {"low_noise": RandomWeights()}) == {"model"}
    assert changed_layers(tiny.SPEC, {"boundary": 0.5}) == {"model"}
    assert changed_layers(tiny.SPEC, {"high_noise.spec.optim.lr": 0.5}) == {"model"}
    assert changed_layers(tiny.SPEC, {"high_noise.spec.runtime.device": "cpu"}) == set()


def test_trainings_share_the_model_layer_whatever_they_do_with_it() -> None:
    changes = {"optim.lr": 0.5, "data.batch_size": 1, "seed": 3, "diffusion.shift": 2.0}
    assert changed_layers(tiny_high.SPEC, changes) == {"training"}
    assert changed_layers(tiny_high.SPEC, {"model.num_layers": 2}) == {"model"}
    assert changed_layers(tiny_high.SPEC, {"start_from": RandomWeights(seed=1)}) == {"model"}


def test_execution_settings_and_labels_count_as_they_do_in_the_two_hashes() -> None:
    changes = {"name": "other", "runtime.batch_size": 3}
    assert changed_layers(tiny.SPEC, changes) == set()
    assert changed_layers(tiny.SPEC, changes, roles=EXACT_ROLES) == {"inference"}
    assert changed_layers(tiny.SPEC, {"name": "other"}, roles=EXACT_ROLES) == set()


@pytest.mark.parametrize("base", [tiny.SPEC, tiny_high.SPEC])
def test_a_change_of_a_leaf_moves_a_layer_exactly_when_it_moves_the_hash(base: Any) -> None:
    for leaf in leaves(base, by_hash=False):
        if isinstance(leaf.value, bool):
            changed = replace(base, leaf.path, not leaf.value)
            moved = spec_hash(changed) != spec_hash(base)
            assert len(changed_layers(base, {leaf.path: not leaf.value})) == moved == (leaf.role is SEMANTIC)
            assert leaf.role in (SEMANTIC, EXECUTION)


def test_a_dump_holds_all_layers_and_loads_back_with_the_same_hashes(tmp_path: Any) -> None:
    file = tmp_path / "spec.yaml"
    for value in (tiny.SPEC, tiny_high.SPEC, *tiny.SPEC.samples.requests[:1]):
        dump(value, file)
        assert layer_hashes(load(file)) == layer_hashes(value)


def test_a_spec_without_layers_says_so() -> None:
    with pytest.raises(TypeError, match="SamplerSpec has no layers"):
        layer_hashes(SamplerSpec())


def test_the_schema_of_a_class_is_part_of_its_layers() -> None:
    @spec("test-layered", schema=2, layer=Layer.INFERENCE)
    class Layered:
        """A class of two layers that changed shape once."""

        weights: int = field(default=0, wire="w", layer=Layer.MODEL)
        """Layer 1."""
        steps: int = 0
        """Layer 2."""

        @staticmethod
        def migrate(payload: dict[str, Any], schema: int) -> dict[str, Any]:
            return payload

    written = b'{"kind":"test-layered","layer":"model","spec":{"w":0,"~schema":2},"v":1}'
    assert layer_hashes(Layered())["model"] == hashlib.sha256(written).hexdigest()
