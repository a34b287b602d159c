"""What every server of ours does: whom it answers, what answers carry, which files it hands out, its end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from mm_config.pages import asset_routes, file_below, file_response, guarded, kit_scripts, kit_styles, serve
from mm_config.schema import UserError

URL = "http://127.0.0.1:8000"
SERVER = """
from mm_config.interrupts import take_over
take_over()
from starlette.applications import Starlette
from mm_config.pages import guarded, serve
serve(guarded(Starlette()), "127.0.0.1", 0, lambda url: print(url, flush=True))
print("ended", flush=True)
"""


async def length_of(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def fails(_: Request) -> Response:
    raise RuntimeError("planted")


def client(root: Path | None = None) -> TestClient:
    def file(request: Request) -> Response:
        assert root is not None
        found = file_below(root, request.path_params["path"])
        return PlainTextResponse("none", 404) if found is None else file_response(found)

    app = Starlette(
        routes=[
            Route("/", length_of, methods=["GET", "POST"]),
            Route("/fails", fails),
            Route("/files/{path:path}", file),
            *asset_routes([*kit_styles(), *kit_scripts()]),
        ]
    )
    return TestClient(
        guarded(app, names=["board.example"], most_body=10), base_url=URL, raise_server_exceptions=False
    )


@pytest.mark.parametrize("path", ["/", "/fails", "/absent", kit_scripts()[0].url])
def test_every_answer_carries_the_policy(path: str) -> None:
    headers = client().get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("10.0.0.7:80", 200),
        ("BOARD.example:443", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:8000", 421),
        ("user@evil.example", 421),
        ("127.0.0.1@evil.example", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_only_who_names_this_machine_is_answered(host: str, status: int) -> None:
    answer = client().get("/", headers={"host": host})
    assert answer.status_code == status and "content-security-policy" in answer.headers


def test_another_sites_page_changes_nothing_and_long_bodies_are_refused() -> None:
    ask = client().post
    assert ask("/", content=b"0123456789").text == "10"
    assert ask("/", content=b"x", headers={"origin": "http://evil.example"}).status_code == 403
    assert ask("/", content=b"x", headers={"origin": "null"}).status_code == 403
    assert ask("/", content=b"x", headers={"origin": "http://localhost:8000"}).status_code == 200
    assert ask("/", content=b"01234567890").status_code == 413
    assert ask("/", content=b"x", headers={"content-length": "many"}).status_code == 413
    assert ask("/", content=iter([b"012345", b"67890"])).status_code == 413, "its head names no length"


def test_files_are_served_in_ranges_and_as_nothing_that_runs(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(bytes(range(100)))
    (tmp_path / "a.html").write_text("<script>alert(1)</script>")
    (tmp_path / "a.json").write_text('"<script>"')
    get = client(tmp_path).get
    part = get("/files/a.mp4", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["content-range"] == "bytes 10-19/100"
    assert part.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert get("/files/a.json").headers["content-type"].startswith("text/plain")
    assert get("/files/a.html").status_code == 404


def test_no_file_outside_of_the_folder_is_served(tmp_path: Path) -> None:
    root, secret = tmp_path / "runs", tmp_path / "secret.txt"
    (root / "one").mkdir(parents=True)
    secret.write_text("secret")
    (root / "kept.txt").write_text("kept")
    (root / "inside.txt").symlink_to(root / "kept.txt")
    (root / "outside.txt").symlink_to(secret)
    (root / "up").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    get = client(root).get
    assert get("/files/inside.txt").text == get("/files/kept.txt").text == "kept"
    for path in (
        "outside.txt",
        "up/secret.txt",
        "loop",
        "one",
        "../secret.txt",
        "one/../../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "%252e%252e/secret.txt",
        "/" + str(secret),
        "%2f" + str(secret).lstrip("/"),
        "kept.txt%00",
        "..\\secret.txt",
        "a" * 5000,
    ):
        answer = get(f"/files/{path}")
        assert answer.status_code == 404 and "secret" not in answer.text, path
    assert file_below(root, str(secret)) is None and file_below(root, "../secret.txt") is None


def test_a_busy_port_and_no_address_are_one_line_each() -> None:
    def never(url: str) -> None:
        raise AssertionError(url)

    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"^--port: 127.0.0.1:{port} can't be used: Address already in use"
        ):
            serve(guarded(Starlette()), "127.0.0.1", port, never)
    with pytest.raises(UserError, match=r"^--host: 'no such host' is no address"):
        serve(guarded(Starlette()), "no such host", 0, never)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_its_end_and_no_failure(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        url = server.stdout.readline().strip()
        assert httpx2.get(url, trust_env=False).status_code == 404
        server.send_signal(number)
        assert (server.communicate(timeout=20)[0], server.returncode) == ("ended\n", 0)
