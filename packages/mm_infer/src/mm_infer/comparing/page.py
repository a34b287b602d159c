"""What a person reads of a comparison: speed beside exactness, step by step."""

from __future__ import annotations

from mm_config.console import say, table, typed_path
from mm_infer.comparing.both import Compared


def print_compared(compared: Compared) -> None:
    """Prints both runs, times with their ratios, and how far latents and frames are apart."""
    one, other = compared.sides
    table("Runs", [(name, typed_path(side.run_dir)) for name, side in zip("AB", compared.sides, strict=True)])
    seconds = {"step": (one.seconds_per_step, other.seconds_per_step)} | {
        stage: (took, other.stages[stage]) for stage, took in one.stages.items()
    }
    speed = compared.speed()
    rows = [(name, f"{a:.3g}", f"{b:.3g}", f"{speed[name]:.2f}x") for name, (a, b) in seconds.items()]
    table("Seconds", rows, ("", "A", "B", "B is faster"))
    a, b = compared.flops()
    say(f"FLOPs, as mm plan counts them: A {a:.3g}, B {b:.3g}, {1 - b / a:.1%} less")
    cache, changes = other.spec.feature_cache, compared.changes
    skipped = () if cache is None else cache.skipped or ()
    header = ("step", "noise level", "expert", "B's relative error")
    steps = [
        (
            str(one["step"]),
            f"{one['sigma']:.4f}",
            one["expert"],
            f"{one['relative_error']:.2e}",
            *(() if changes is None else (_change(changes, one["step"]),)),
            *(() if not skipped else ("skipped" if one["step"] in skipped else "",)),
        )
        for one in compared.latents()
    ]
    header += () if changes is None else ("change",)
    header += ("",) if skipped else ()
    if len(steps) < len(one.steps):
        say("their noise levels differ, so latents are compared after the last step alone")
    table("Latents", steps, header)
    videos = [
        (
            f"{video['ssim']:.4f}",
            "equal" if video["psnr"] is None else f"{video['psnr']:.2f} dB",
            video["prompt"],
        )
        for video in compared.videos()
    ]
    table("Frames", videos, ("SSIM", "PSNR", "prompt"))
    if changes is not None and not skipped:
        say("no step changes so little that it is skipped: raise spec.feature_cache.threshold")


def _change(changes: dict[int, float], step: int) -> str:
    return f"{changes[step]:.3f}" if step in changes else ""
