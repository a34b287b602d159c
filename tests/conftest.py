"""Options of the whole test suite."""

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update",
        action="store_true",
        help="run only the tests that compare with files of this repository, and rewrite the files: "
        "tests/mm_config/golden.txt, births.txt, CHANGELOG.md, reports of imports and pages in docs/",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --update keeps the tests that have something to write: those that ask whether they are to."""
    if config.getoption("--update"):
        writing = [item for item in items if "update" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in writing])
        items[:] = writing


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Digests of files that tests hash are remembered apart from the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
