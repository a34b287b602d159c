"""Databases for the run index's tests, and a full disk."""

import errno
import os
import uuid
from collections.abc import Iterator

import pytest


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A schema of its own on the server that MM_TEST_PG_URL names."""
    server = os.environ.get("MM_TEST_PG_URL")
    if not server:
        pytest.skip("MM_TEST_PG_URL names no PostgreSQL server (.ci/run starts one)")
    from sqlalchemy import NullPool, create_engine, make_url

    url = make_url(server).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    schema = f"mm_test_{uuid.uuid4().hex}"
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    inside = url.update_query_dict({"options": f"-csearch_path={schema}"})
    yield inside.render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture(params=["sqlite", "postgresql"])
def each_database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test on the index beside the run folders, then on one on a PostgreSQL server."""
    if request.param == "postgresql":
        monkeypatch.setenv("MM_RUNS_URL", request.getfixturevalue("postgres_url"))
    return request.param


@pytest.fixture
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that start at once: asking git takes long, and no kill loses what waits for the disk."""
    from mm_config.runs import folder

    monkeypatch.setattr(folder, "provenance", lambda *_: {"git": []})
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes no more: what is written into a file is lost where it has to last."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.fixture
def all_is_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has suggestions and searches ask no runner what it can do."""
    from mm_config.planning import layouts, suggestions

    for module in (layouts, suggestions):
        monkeypatch.setattr(module, "refused", lambda spec, changed: False)
