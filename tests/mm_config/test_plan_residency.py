"""`mm plan --device` of a generation that leaves its residency to the plan."""

from __future__ import annotations

from itertools import product

import pytest

from experiments import wan22_t2v
from mm_config import replace
from mm_config.planning.costs import Kind
from mm_config.planning.plan import Plan, plan
from mm_config.specs.serving import Residency, ResidencySpec

FIELD = "runtime.residency"
CHOICES = (Residency.RESIDENT, Residency.SWAP, Residency.LAYERWISE)


def of(experts: Residency, encoders: Residency, device: str) -> Plan:
    return plan(replace(wan22_t2v.SPEC, FIELD, ResidencySpec(experts=experts, encoders=encoders)), 1, device)


# Two experts of 14.3e9 weights in bfloat16 take 57 GB, UMT5 of 5.7e9 11 GB more.
@pytest.mark.parametrize(
    ("device", "experts", "encoders"),
    [
        ("h200", Residency.RESIDENT, Residency.RESIDENT),
        ("a100-80gb", Residency.RESIDENT, Residency.SWAP),
        ("a100-40gb", Residency.SWAP, Residency.SWAP),
        ("rtx-4090", Residency.LAYERWISE, Residency.RESIDENT),
    ],
)
def test_auto_is_what_moves_least_of_what_fits(device: str, experts: Residency, encoders: Residency) -> None:
    found, said = of(Residency.AUTO, Residency.AUTO, device), of(experts, encoders, device)
    assert found.fits and found.memory == said.memory and found.timing == said.timing
    (note,) = (note for note in found.notes if note.startswith("residency: "))
    said_first = f"residency: experts {experts.value}, encoders {encoders.value}; by mm plan the fastest"
    assert note.startswith(f"{said_first} that fits, with ")
    assert note.endswith(f" GB that {device} has")

    def copied(one: Plan) -> int:
        return sum(flow.bytes for flow in one.traffic if flow.kind is Kind.COPY)

    fitting = [one for pair in product(CHOICES, CHOICES) if (one := of(*pair, device)).fits]
    assert copied(found) == min(map(copied, fitting))


def test_without_a_device_nothing_is_chosen() -> None:
    spec = replace(wan22_t2v.SPEC, FIELD, ResidencySpec(experts=Residency.AUTO, encoders=Residency.AUTO))
    assert not [note for note in plan(spec).notes if note.startswith("residency: ")]
