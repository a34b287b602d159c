"""Rules on how a generation encodes and decodes: ranks that share it, and its compilation."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.schema.errors import Problem
from mm_config.specs.infer import InferSpec
from mm_config.specs.serving import GuidanceMode


def decoding_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    """There are ranks to share the autoencoder, and a network in it to share or compile.

    Args:
        spec: The inference spec.
        path: Where it stands, for messages that name a second field.
    """
    runtime, parallel = spec.runtime, spec.runtime.parallel
    tiling = getattr(spec.autoencoder, "tiling", None)
    branches = 2 if runtime.guidance is GuidanceMode.PARALLEL else 1
    if parallel.autoencoder and parallel.ulysses * parallel.ring * parallel.tensor * branches == 1:
        yield Problem(
            "runtime.parallel.autoencoder",
            "shares work among the ranks that make one video, but there is one; raise ulysses or ring, or "
            "turn this off",
        )
    elif parallel.autoencoder and tiling is None:
        yield Problem(
            "runtime.parallel.autoencoder",
            f"shares tiles or latent frames among ranks, but {path}.autoencoder has no network that takes "
            "them; turn this off",
        )
    if not runtime.compile_autoencoder:
        return
    if not runtime.compile.enabled:
        yield Problem(
            "runtime.compile_autoencoder",
            f"compiles the autoencoder too, but {path}.runtime.compile.enabled is False; turn it on, or this "
            "off",
        )
    elif tiling is None:
        yield Problem(
            "runtime.compile_autoencoder", f"is True, but {path}.autoencoder has no network; turn this off"
        )
    elif parallel.autoencoder and not tiling:
        yield Problem(
            "runtime.compile_autoencoder",
            f"is True, but {path}.runtime.parallel.autoencoder hands caches from rank to rank between "
            "convolutions, which no graph holds; turn one of them off, or autoencoder.tiling on",
        )
