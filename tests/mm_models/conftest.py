"""Two gloo ranks, and a small network."""

import pytest

from mm_config.specs.wan import WanTransformerSpec
from tests.forked_ranks import run_ranks as run_ranks
from tests.tiny_wan import TINY_WAN


@pytest.fixture
def tiny() -> WanTransformerSpec:
    return TINY_WAN
