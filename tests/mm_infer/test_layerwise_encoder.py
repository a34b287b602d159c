"""A text encoder whose blocks come one by one: the same features, in the memory that the plan says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mm_config import problems, replace
from mm_config.options.run_options import RunOptions
from mm_config.planning.plan import plan
from mm_config.schema.errors import UserError
from mm_config.specs.encoders import HashedTextEncoderSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.serving import Residency, ResidencySpec
from mm_infer import load
from mm_infer.residency import placing
from tests.mm_infer.held import Held
from tests.mm_infer.residents import PROMPT, spec_of, written

LAYERS = 3
WHOLE = ResidencySpec(experts=Residency.SWAP, encoders=Residency.SWAP)
TEXTS = [PROMPT, "", "a circle"]


@pytest.fixture(scope="module")
def spec() -> InferSpec:
    """With a text encoder that is larger than all else."""
    return spec_of(text_width=256)


@pytest.fixture(scope="module")
def options(spec: InferSpec, tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    return written(spec, tmp_path_factory.mktemp("parts"))


def by_blocks(spec: InferSpec, **others: Any) -> InferSpec:
    residency = ResidencySpec(experts=Residency.SWAP, encoders=Residency.LAYERWISE, **others)
    return replace(spec, "runtime.residency", residency)


@pytest.mark.parametrize("kept", ["in files", "on the host"])
@pytest.mark.parametrize(("share", "prefetch"), [(1.0, 0), (1.0, 2), (0.5, 1)])
def test_it_makes_the_same_features_with_few_blocks_there(
    spec: InferSpec,
    options: RunOptions,
    share: float,
    prefetch: int,
    kept: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = load(spec, options).text_encoder.encode(TEXTS)
    if kept == "on the host":
        monkeypatch.setattr(placing, "wait_in_files", lambda residency, device: False)
    encoder: Any = load(by_blocks(spec, share=share, prefetch=prefetch), options).text_encoder
    seen = list[int]()

    def look(*_: Any) -> None:
        sizes = [block.layer[0].SelfAttention.q.weight.untyped_storage().nbytes() for block in blocks]
        seen.append(sum(size > 0 for size in sizes))

    blocks = list(encoder.network.encoder.block)
    for block in blocks:
        block.register_forward_pre_hook(look)
    assert torch.equal(encoder.encode(TEXTS), expected)
    stay = LAYERS - 2 if share == 0.5 else 0
    assert len(seen) == LAYERS * len(TEXTS) and max(seen) == stay + 1 + prefetch


def test_it_takes_what_is_planned(spec: InferSpec, options: RunOptions) -> None:
    measured: dict[str, int] = {}
    for name, asked in {
        "whole": replace(
            spec, "runtime.residency", ResidencySpec(experts=Residency.SWAP, encoders=Residency.SWAP)
        ),
        "by blocks": by_blocks(spec, prefetch=0),
    }.items():
        held = Held()
        with held:
            pipeline = load(asked, options)
            pipeline.residents.room.empty()
            held.most_since()
            pipeline.text_encoder.encode([PROMPT])
        del pipeline
        measured[name] = held.most
        planned = sum(plan(asked).memory.phases["encoding"].values())
        assert held.most == pytest.approx(planned, rel=0.1), name
    assert measured["by blocks"] < 0.6 * measured["whole"]


def test_what_has_no_blocks_or_too_few_is_refused(spec: InferSpec) -> None:
    def only(asked: InferSpec) -> tuple[str, str]:
        (problem,) = problems(asked)
        return problem.path, problem.message

    path, message = only(by_blocks(spec, prefetch=LAYERS))
    assert path == "spec.runtime.residency.prefetch"
    assert message == (
        "is 3, but 3 of the text encoder's 3 blocks wait: at most 2 can be brought ahead of the one at work"
    )
    hashed = HashedTextEncoderSpec()
    path, message = only(
        replace(by_blocks(spec), {"text_encoder": hashed, "model.text_dim": hashed.text_dim})
    )
    assert path == "spec.runtime.residency.encoders"
    assert message == (
        "is layerwise, but the text encoder has no blocks that could come one by one; swap moves it whole"
    )


def test_weights_that_do_not_fit_are_told_as_it_is_loaded(spec: InferSpec, options: RunOptions) -> None:
    with pytest.raises(UserError, match=r"spec\.text_encoder"):
        load(replace(by_blocks(spec), "text_encoder.d_ff", 2048), options)
