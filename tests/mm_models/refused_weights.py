"""What is said of weights that are not taken."""

from pathlib import Path

import pytest

import mm_models
from mm_config.schema.errors import UserError
from mm_models.loading import check
from mm_models.weights.converting import convert
from mm_models.weights.opening import open_weights
from tests.mm_models.weight_files import T2V


def refused(path: Path) -> str:
    """What opening and loading say, equally."""
    with pytest.raises(UserError) as caught:
        open_weights(path)
    with pytest.raises(UserError) as loading:
        mm_models.load(mm_models.build(T2V, "meta"), path)
    assert loading.value.problems == caught.value.problems
    assert len(caught.value.problems) == 1
    return str(caught.value).removeprefix(str(path)).lstrip(":/ ")


def does_not_fit(path: Path) -> list[str]:
    """What loading, checking and converting say, equally; nothing is filled or written."""
    network = mm_models.build(T2V, "cpu")
    with pytest.raises(UserError) as loading:
        mm_models.load(network, path)
    assert all(parameter.isnan().all() for parameter in network.parameters())
    with pytest.raises(UserError) as converting:
        convert(path, path.parent / "out", spec=T2V)
    assert not (path.parent / "out").exists()
    with pytest.raises(UserError) as checking:
        check(mm_models.build(T2V, "meta"), path)
    assert checking.value.problems == converting.value.problems == loading.value.problems
    assert {problem.path for problem in loading.value.problems} == {str(path)}
    return [problem.message for problem in loading.value.problems]
