"""Places a pipeline's parts: on the device for good, or as guests of the room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import nn

from mm_config.specs import Expert, Residency, ResidencySpec
from mm_infer.passes import Forward
from mm_infer.residency.experts import Waiting, placed
from mm_infer.residency.room import Built, Guest, Moved, Permanent, Room, Swapped, in_room
from mm_infer.residency.units import Courier, Unit
from mm_models import WaitingTextEncoder


@attrs.frozen(eq=False)
class Residents:
    """Who shares the device of a pipeline."""

    room: Room = attrs.field(factory=Room)
    """What of it is shared."""
    experts: Mapping[Expert, Guest] = attrs.field(factory=dict)
    """The experts as guests of the room; empty where nobody leaves."""

    def brought(self, forward: Forward) -> Forward:
        """Passes for which the expert that makes them is brought first, and others leave."""
        return in_room(forward, self.room, self.experts) if self.experts else forward


ALWAYS_THERE = Residents()
"""All is on the device for good."""


def wait_in_files(residency: ResidencySpec, device: torch.device) -> bool:
    """Whether what waits is read from its files when it is needed.

    On a CPU the host's memory is the device's: nothing would be spared by keeping it there.
    """
    return device.type == "cpu" or not residency.pin_memory


def place_experts(
    residency: ResidencySpec,
    device: torch.device,
    experts: Mapping[Expert, Callable[[], nn.Module]],
    waiting: Mapping[Expert, Callable[[], Waiting]],
) -> tuple[dict[Expert, nn.Module], Residents]:
    """Loads the experts, or makes them ready to come.

    Args:
        residency: Where they are, which is settled.
        device: The device.
        experts: Loads each onto the device.
        waiting: Builds each without weights.

    Raises:
        UserError: Weights can't be read.
    """
    if residency.experts is Residency.RESIDENT:
        networks = {expert: load() for expert, load in experts.items()}
        if residency.encoders is Residency.RESIDENT:
            return networks, ALWAYS_THERE
        return networks, Residents(Room(), dict.fromkeys(networks, Permanent()))
    in_files = wait_in_files(residency, device)
    courier = Courier(device, from_files=in_files)
    networks, guests = {}, {}
    for expert, build in waiting.items():
        one = build()
        networks[expert] = one.network
        guests[expert] = placed(one, residency.experts, residency, courier, in_files=in_files)
    return networks, Residents(Room(), guests)


def place_encoder(
    residency: ResidencySpec, device: torch.device, residents: Residents, build: Callable[[], Any]
) -> Any:
    """Builds an encoder, an autoencoder among them, and has it leave where encoders don't stay.

    Args:
        residency: Where it is, which is settled.
        device: The device.
        residents: Who else is there.
        build: Builds it on the device, with its weights.

    Raises:
        UserError: Its weights can't be read.
    """
    room = residents.room
    if residency.encoders is Residency.RESIDENT:
        # Experts that don't stay leave before it works.
        return Swapped(room, Moved(build(), Permanent())) if residents.experts else build()
    if wait_in_files(residency, device):
        guest: Built | Moved = Built(build)
        room.enter(guest)  # What can't be read is told now, and not after hours of denoising.
        return Swapped(room, guest)
    room.empty()
    part = build()
    weights = Unit(_weights_of(part), fill=lambda: None)
    weights.keep_on_host()
    weights.leave()
    return Swapped(room, Moved(part, weights))


def place_by_blocks(
    residency: ResidencySpec, device: torch.device, residents: Residents, encoder: WaitingTextEncoder
) -> Any:
    """Has an encoder that was built without memory come block by block whenever it works.

    Raises:
        UserError: Its weights can't be read.
    """
    in_files = wait_in_files(residency, device)
    courier = Courier(device, from_files=in_files)
    residents.room.empty()
    waiting = Waiting(encoder.network, encoder.fill, encoder.blocks)
    guest = placed(waiting, residency.encoders, residency, courier, in_files=in_files)
    return Swapped(residents.room, Moved(encoder, guest))


def _weights_of(part: Any) -> list[torch.Tensor]:
    """All parameters of the networks that an encoder holds; without any, it has no weights."""
    networks = [one for one in vars(part).values() if isinstance(one, nn.Module)]
    return [parameter for network in networks for parameter in network.parameters()]
