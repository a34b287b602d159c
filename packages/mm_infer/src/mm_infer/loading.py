"""A generation loaded: from a spec to a pipeline, once."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import mm_models
from mm_config import rules
from mm_config.npu import check_environment
from mm_config.options import RunOptions
from mm_config.schema import concerning, expect
from mm_config.specs import Expert, GenerationRequest, InferSpec, RandomWeights, Residency
from mm_infer.adapters import add_adapters
from mm_infer.content import require_pinned
from mm_infer.layout import Layout, laid_out
from mm_infer.opening import (
    PATH_OF,
    Generation,
    open_generation,
    options_of_loading,
    train_missing,
    with_residency,
)
from mm_infer.pipeline import Pipeline, Video, every_video
from mm_infer.requests import Inputs, requests_of
from mm_infer.residency import FillSome, Waiting, place_by_blocks, place_encoder, place_experts
from mm_infer.spreading import spread
from mm_models import Memory, without_memory
from mm_models.parallel import over_ranks


def load(spec: InferSpec, options: RunOptions | None = None) -> Pipeline:
    """Loads a generation once, to make videos of it many times: `load(spec)(["a red circle moving up"])`.

    Under torchrun every rank calls it; they join a process group, unless the caller did, and part as the
    process ends.

    Args:
        spec: What to carry out. Weights that a training makes are found by its hash; they are trained first
            where `spec.runtime.build_missing` says so.
        options: Where runs and releases are looked up, where `mm generate` looks them up by default, and how
            missing weights are trained. Loading is no run, so what only a run could heed is refused.

    Raises:
        TypeError: An argument is of another type.
        UserError: The spec breaks a rule or can't be carried out here, or weights are missing.
    """
    expect("spec", spec, InferSpec)
    with ExitStack() as stack:
        layout = stack.enter_context(laid_out(spec))
        pipeline = loaded(spec, options, None, layout)
        # The pipeline speaks with other ranks as long as it lives.
        atexit.register(stack.pop_all().close)
    return pipeline


def generate(
    spec: InferSpec, prompts: Sequence[str | GenerationRequest], options: RunOptions | None = None
) -> tuple[Video, ...]:
    """Makes one video per prompt, in their order: `load`, then one call of the pipeline.

    The prompts are checked before anything is trained or loaded.

    Args:
        spec, options: As for `load`.
        prompts: Requests, or plain prompts, whose seed is 0.

    Raises:
        TypeError: An argument is of another type.
        UserError: As `load`, or a prompt is blank or too long.
    """
    requests = requests_of(prompts)
    expect("spec", spec, InferSpec)
    with laid_out(spec) as layout:
        return every_video(loaded(spec, options, requests, layout), Inputs(requests))


def load_pipeline(generation: Generation) -> Pipeline:
    """Loads the experts with their adapters, the text encoder and the autoencoder onto the device.

    Args:
        generation: Opened, with nothing left to train.
    """
    generation = with_residency(generation)
    spec, place, residency = generation.spec, generation.device, generation.residency
    assert residency is not None
    found = generation.weights
    networks, residents = place_experts(
        residency,
        place,
        {expert: partial(load_network, generation, expert) for expert in found},
        {expert: partial(waiting_network, generation, expert) for expert in found},
    )

    for network in networks.values():
        # Last: what is compiled is what all others have made of the blocks.
        mm_models.compile_blocks(network, spec.runtime.compile, "spec.runtime.compile")

    def encoder(build: Callable[..., Any], part: Any) -> Any:
        if part is spec.text_encoder and residency.encoders is Residency.LAYERWISE:
            waits = mm_models.waiting_text_encoder(part, place, generation.options.locations)
            return place_by_blocks(residency, place, residents, waits)
        built = partial(build, part, device=place, locations=generation.options.locations)
        if part is spec.autoencoder:
            built = partial(_shared, generation, built)
        return None if part is None else place_encoder(residency, place, residents, built)

    return Pipeline(
        spec=spec,
        device=place,
        layout=generation.layout,
        networks=networks,
        sparse=generation.sparse,
        residents=residents,
        autoencoder=encoder(mm_models.build_autoencoder, spec.autoencoder),
        image_encoder=encoder(mm_models.build_image_encoder, spec.image_encoder),
        # The last one that is built stays until another is asked: this one is asked first.
        text_encoder=encoder(mm_models.build_text_encoder, spec.text_encoder),
    )


def _shared(generation: Generation, build: Callable[[], Any]) -> Any:
    """The autoencoder, shared by ranks and compiled where the spec says so."""
    autoencoder, runtime = build(), generation.spec.runtime
    if runtime.parallel.autoencoder and (makers := generation.layout.makers) is not None:
        mm_models.share_autoencoder(autoencoder, makers, rules.group_timeout(runtime)[1])
    if runtime.compile_autoencoder:
        mm_models.compile_autoencoder(autoencoder, runtime.compile)
    return autoencoder


def load_network(generation: Generation, expert: Expert) -> nn.Module:
    """An expert with its weights and adapters, on the generation's device: this rank's part of it."""
    place, layout = generation.device, generation.layout
    network = _network(generation, "meta" if layout.splits_weights else place)
    if layout.splits_weights:
        network.to_empty(device=place)
        network.init_buffers(place)  # type: ignore[operator]
    if isinstance(weights := generation.weights[expert], RandomWeights):
        mm_models.initialize(network, weights.seed)
    else:
        with concerning(PATH_OF[expert]):
            mm_models.load(network, weights)
    add_adapters(network, [one for one in generation.adapters if one.field.expert is expert])
    network.eval().requires_grad_(False)
    if generation.spec.quantization is not None:
        mm_models.quantize(network, generation.spec.model, generation.spec.quantization)
    return network


def waiting_network(generation: Generation, expert: Expert) -> Waiting:
    """An expert without memory for its weights, and what fills it."""
    place, network = generation.device, _network(generation, "meta")
    if generation.layout.splits_weights:
        network.to_empty(device=place)
        Memory(network.parameters()).release()
    else:
        without_memory(network, place)
    network.init_buffers(place)  # type: ignore[operator]
    own = [one for one in generation.adapters if one.field.expert is expert]
    return Waiting(
        network=network,
        read=_reading(network, generation.weights[expert], PATH_OF[expert]),
        merged=[one.addition for one in own if one.field.merge],
        beside=[one.addition for one in own if not one.field.merge],
    )


def _reading(network: nn.Module, weights: Path | RandomWeights, path: str) -> FillSome:
    """What fills some parameters with the weights that lie somewhere, or that a seed draws."""
    if not isinstance(weights, RandomWeights):
        with concerning(path):
            return mm_models.load_by_parts(network, weights)
    parameters = dict(network.named_parameters())

    def draw(names: Collection[str]) -> None:
        for name in names:
            mm_models.draw(network, name, parameters[name], weights.seed)

    return draw


def _network(generation: Generation, place: torch.device | str) -> nn.Module:
    """An expert before it has weights: this rank's part of it."""
    spec, layout = generation.spec, generation.layout
    network = mm_models.build(
        spec.model,
        device=place,
        dtype=generation.dtype,
        ops=over_ranks(generation.ops, layout.context),
        float32_residual=spec.float32_residual,
    )
    if generation.sparse is not None:
        generation.sparse.attend_in(network)
    spread(network, spec, layout)
    return network


def loaded(
    spec: InferSpec,
    options: RunOptions | None,
    requests: Sequence[GenerationRequest] | None,
    layout: Layout,
) -> Pipeline:
    """A pipeline of ranks that are laid out; all of them call it. Arguments and errors as of `generate`."""
    options = options_of_loading(options)
    check_environment(spec)
    ranks = layout.ranks
    opened = partial(open_generation, spec, options, requests, layout)
    generation = ranks.together(lambda: train_missing(with_residency(opened())))
    ranks.on_first(lambda: require_pinned(generation))
    return ranks.together(lambda: load_pipeline(generation))
