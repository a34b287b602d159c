"""Videos that a training makes on its way: with the network as it is, or its average where there is one."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

import mm_models
from mm_config.console import Progress, say
from mm_config.runs import comment_for
from mm_config.schema import UserError, concerning
from mm_config.specs import Expert, GenerationRequest, RandomWeights
from mm_data import read_mp4, to_frames, write_contact_sheet, write_mp4
from mm_infer import Video, by_networks, denoised, file_names, strips_of
from mm_models.parallel import over_ranks, share_tokens
from mm_train.measuring import at_rest
from mm_train.parallelize import materialize, shard_device
from mm_train.sample_requests import OTHER, Sampling
from mm_train.sharding import shard
from mm_train.work import Training

SHEET = "contact_sheet.png"


def sampled(training: Training, step: int, bar: Progress) -> None:
    """Makes the videos of `spec.samples` with the network as it is after a step, into `samples/step-.../`.

    All ranks take part, since the weights of a sharded network are whole only where all ask for them: each
    makes videos of its own, and as many batches as the others.

    Args:
        training: What is trained.
        step: Steps that are done.
        bar: Tells how far it is.

    Raises:
        UserError: A video can't be written, or the other expert's weights can't be read any more.
    """
    sampling, ranks, layout = training.sampling, training.ranks, training.layout
    assert sampling is not None
    folder = training.run.samples_dir / f"step-{step:08d}"
    ranks.on_first(lambda: folder.mkdir(parents=True, exist_ok=True))
    generation, batches = sampling.generation, sampling.batches
    requests = generation.spec.samples.requests
    files = dict(zip(requests, (folder / name for name in file_names(requests)), strict=True))
    rounds, steps = -(-len(batches) // layout.data_ranks), generation.spec.sampler.steps
    failed: list[str] = []
    with at_rest(training):
        networks = _networks(training, sampling)
        locations = generation.options.locations
        autoencoder = mm_models.build_autoencoder(training.spec.autoencoder, training.device, locations)
        for turn in range(rounds):

            def took(done: int, *_: object, before: int = turn * steps) -> None:
                bar.advance(0, doing=f"samples {before + done + 1}/{rounds * steps}")

            number = turn * layout.data_ranks + layout.data_rank
            batch = batches[min(number, len(batches) - 1)].to(training.device)
            frames: dict[GenerationRequest, Tensor] = {}
            try:
                latents = denoised(generation.spec, by_networks(networks), batch, took)
            except UserError as error:  # Weights that make no video yet may still be trained.
                failed.append(str(error))
            else:
                if number < len(batches) and layout.leads:
                    made = to_frames(autoencoder.decode(latents).float().cpu())
                    frames = dict(zip(batch.requests, made, strict=True))
            ranks.together(lambda frames=frames: _write(training, frames, files))
    for message in sorted({message for part in ranks.gather(failed) for message in part}):
        say(f"samples after step {step}: {message}")
    if ranks.on_first(lambda: _sheet(training, sampling, step, folder, files)):
        say(f"samples after step {step}: {folder}")


def _networks(training: Training, sampling: Sampling) -> dict[Expert, nn.Module]:
    """The network in training, and the other expert, loaded for this once, where the spec names one."""
    spec, weights = training.spec, sampling.generation.weights
    if Expert.SINGLE in weights:
        return {Expert.SINGLE: training.network}
    (other,) = weights.keys() - {spec.expert}
    network = mm_models.build(
        spec.model,
        dtype=sampling.generation.dtype,
        ops=over_ranks(sampling.generation.ops, training.layout.context),
        float32_residual=spec.precision.float32_residual,
    )
    if training.layout.context is not None:
        share_tokens(network, training.layout.context)
    if training.layout.parameters is not None:
        shard(network, spec.fsdp, spec.precision, training.layout.parameters, training.device)
    materialize(network, training.device, shard_device(spec, training.device))
    training.ranks.together(lambda: _fill(network, weights[other]))
    return {spec.expert: training.network, other: network.eval().requires_grad_(False)}


def _fill(network: nn.Module, weights: Path | RandomWeights) -> None:
    if isinstance(weights, RandomWeights):
        mm_models.initialize(network, weights.seed)
    else:
        with concerning(OTHER):
            mm_models.load(network, weights)


def _write(
    training: Training, frames: dict[GenerationRequest, Tensor], files: dict[GenerationRequest, Path]
) -> None:
    for request, one in frames.items():
        comment = comment_for(training.spec, request, training.run.record)
        try:
            write_mp4(files[request], one, training.spec.data.fps, comment)
        except OSError as error:
            raise UserError(f"{files[request]}: can't be written: {error.strerror or error}") from error


def _sheet(
    training: Training, sampling: Sampling, step: int, folder: Path, files: dict[GenerationRequest, Path]
) -> bool:
    """Writes one picture of all videos, those of other ranks too; False where there are none."""
    videos = [Video(request, read_mp4(file)) for request, file in files.items() if file.exists()]
    if not videos:
        return False
    spec, sampler = training.spec, sampling.generation.spec.sampler
    how = [f"{sampler.solver.value}, {sampler.steps} steps, shift {sampler.shift:g}"]
    if training.average is not None:
        how.append("average of weights")
    if spec.expert is not Expert.SINGLE and Expert.SINGLE in sampling.generation.weights:
        part = "below" if spec.expert is Expert.HIGH_NOISE else "at and above"
        how.append(f"{spec.expert.value} expert alone, never trained {part} {spec.diffusion.boundary:g}")
    title = f"{spec.name or 'training'} after step {step}"
    write_contact_sheet(folder / SHEET, strips_of(videos), title=title, subtitle="    ".join(how))
    return True
