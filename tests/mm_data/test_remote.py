"""Clips in a bucket of a local S3 server, and what may be asked for over a network."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import attrs
import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from mm_config.schema import UserError
from mm_config.specs import FolderSpec, IndexSpec, MixturePart, MixtureSpec, ShapesSpec
from mm_data import dataset_input, prepare, remote
from mm_data.bad import BadClip, Fault
from mm_data.index.sources.opening import Reading, open_source
from mm_data.media import open_media
from tests.mm_data.conftest import Coded

ALLOWED = ("s3://clips/train", "s3://lists")
Put = Callable[[str, Path], None]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The address of an S3 server that others wrote."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def put(service: str) -> Put:
    """Uploads a file by Amazon's own library."""
    client: Any = boto3.client("s3", endpoint_url=service)

    def upload(url: str, path: Path) -> None:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

    return upload


@pytest.fixture
def clips(tmp_path: Path, coded: Coded) -> Path:
    (root := tmp_path / "clips").mkdir()
    for name, frames in (("a", 24), ("b", 9)):
        coded.write(root / f"{name}.mp4", range(frames))
        (root / f"{name}.txt").write_text(f"clip {name}")
    return root


def test_a_bucket_is_read_as_a_folder_is(clips: Path, tmp_path: Path, service: str, put: Put) -> None:
    for file in clips.iterdir():
        put(f"s3://clips/train/{file.name}", file)
    put("s3://clips/train/.cache/a.mp4", clips / "a.mp4")
    here = FolderSpec(name="here", path=str(clips))
    there = FolderSpec(name="there", path="s3://clips/train", remote=(*ALLOWED, service))
    digests: list[str] = []
    for spec in (here, there):
        dataset = prepare(spec, cache_dir=tmp_path / spec.name)
        digests.append(dataset_input(spec, dataset, tmp_path / "contents").digest)
    assert digests[0] == digests[1]
    first, second = dataset.records
    assert (first.url, second.url) == ("s3://clips/train/a.mp4", "s3://clips/train/b.mp4")
    assert first.measured and first.measured.num_frames == 24
    with open_media(first.path, url=first.url, allowed=remote.allowed_by(there)) as file:
        assert file.seek(-100, 2) and file.read() == (clips / "a.mp4").read_bytes()[-100:]
    with pytest.raises(BadClip, match="a url that may not be read"):
        open_media(first.path, url=first.url, allowed=(service,))
    put("s3://clips/train/a.mp4", clips / "b.mp4")
    assert [
        one.measured and one.measured.num_frames
        for one in prepare(there, cache_dir=tmp_path / "there").records
    ] == [9, 9]


def test_a_storage_is_believed_until_it_has_another_version(
    clips: Path, tmp_path: Path, service: str, put: Put
) -> None:
    for file in clips.iterdir():
        put(f"s3://clips/train/kept/{file.name}", file)
    allowed = ("s3://clips/train/kept", service)
    folder = FolderSpec(name="there", path="s3://clips/train/kept", remote=allowed)
    here = FolderSpec(name="here", path=str(clips))
    dataset = prepare(folder, cache_dir=tmp_path / "cache")
    found = dataset_input(folder, dataset, tmp_path / "contents")
    assert found.declared
    assert not dataset_input(here, prepare(here, cache_dir=tmp_path), tmp_path / "contents").declared

    # The same bytes in two parts are another version, by their ETag.
    client: Any = boto3.client("s3", endpoint_url=service)
    place = {"Bucket": "clips", "Key": "train/kept/a.mp4"}
    begun = client.create_multipart_upload(**place)["UploadId"]
    part = client.upload_part(**place, UploadId=begun, PartNumber=1, Body=(clips / "a.mp4").read_bytes())
    whole = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    client.complete_multipart_upload(**place, UploadId=begun, MultipartUpload=whole)
    assert dataset_input(folder, dataset, tmp_path / "contents").digest == found.digest

    put("s3://clips/train/kept/a.mp4", clips / "b.mp4")
    with pytest.raises(UserError, match=r"changed since they were indexed: a\.mp4; `mm data index` tells"):
        dataset_input(folder, dataset, tmp_path / "contents")
    with pytest.raises(UserError, match="can't be compared with what was indexed: a url that may not"):
        dataset_input(attrs.evolve(folder, remote=()), dataset, tmp_path / "contents")


def test_lists_and_shards_lead_to_buckets(clips: Path, tmp_path: Path, service: str, put: Put) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for file in sorted(clips.iterdir()):
            tar.add(file, file.name)
    put("s3://clips/train/shards/0.tar", tmp_path / "0.tar")
    put("s3://clips/train/far.mp4", clips / "a.mp4")
    (clips / "list.csv").write_text("url,caption\ns3://clips/train/far.mp4,far\na.mp4,near\n")
    put("s3://lists/list.csv", clips / "list.csv")
    allowed = (*ALLOWED, service)
    shards = prepare(
        FolderSpec(name="s", path="s3://clips/train/shards", remote=allowed), cache_dir=tmp_path / "cache"
    )
    for record, name in zip(shards.records, ("a.mp4", "b.mp4"), strict=True):
        with open_media(record.path, record.part, record.url, allowed) as file:
            assert file.read() == (clips / name).read_bytes()
    mixed = FolderSpec(name="m", path=str(clips / "list.csv"), remote=allowed)
    assert [one.url for one in prepare(mixed, cache_dir=tmp_path).records] == [
        "s3://clips/train/far.mp4",
        None,
    ]
    # In the bucket there is no a.mp4 beside the list.
    far = FolderSpec(name="f", path="s3://lists/list.csv", remote=allowed)
    assert [one.caption for one in prepare(far, cache_dir=tmp_path).records] == ["far"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1/a", "only s3:// is read over the network, not http://"),
        ("file:///etc/passwd", "only s3:// is read over the network, not file://"),
        ("s3://clips/other/a", "a url that may not be read"),
        ("s3://clips/train2/a", "a url that may not be read"),
        ("s3://clips-2/train/a", "a url that may not be read"),
        ("s3://clips/train/../x", "`..` is not allowed in a url"),
        ("s3://key:secret@clips/train/a", "a url must be s3://BUCKET/KEY"),
        ("s3://clips/train/a?versionId=1", "a url must be s3://BUCKET/KEY"),
        ("s3:///train/a", "a url must be s3://BUCKET/KEY"),
    ],
)
def test_what_the_spec_does_not_name_is_not_read(url: str, reason: str) -> None:
    with pytest.raises(remote.Refused, match=reason.replace(".", r"\.")):
        remote.allowed(url, ALLOWED)


def test_a_mixture_allows_what_its_parts_allow() -> None:
    index = IndexSpec(name="x", digest="0" * 64, remote=("s3://a",))
    folder = FolderSpec(name="y", remote=("s3://b", "s3://a"))
    mixture = MixtureSpec(parts=tuple(MixturePart(dataset=one) for one in (index, folder, ShapesSpec())))
    assert remote.allowed_by(mixture) == ("s3://a", "s3://b")


class Redirecting(BaseHTTPRequestHandler):
    """A service that sends its clients elsewhere, and notes who came."""

    to: ClassVar[str] = ""
    came: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.came.append(self.path)
        self.send_response(307)
        self.send_header("Location", f"{self.to}{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_no_redirect_is_followed(service: str, clips: Path, put: Put) -> None:
    put("s3://clips/train/a.mp4", clips / "a.mp4")
    Redirecting.to = service
    Redirecting.came.clear()
    server = HTTPServer(("127.0.0.1", 0), Redirecting)
    Thread(target=server.serve_forever, daemon=True).start()
    allowed = ("s3://clips", f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(BadClip), open_media(Path(), url="s3://clips/train/a.mp4", allowed=allowed) as file:
        file.read()
    assert Redirecting.came
    server.shutdown()
    server.server_close()


def test_private_addresses_have_to_be_named(monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    remote.require_host("127.0.0.1", "127.0.0.1")
    remote.require_host("clips.minio.local", "minio.local")
    with pytest.raises(remote.Refused, match=r"sends to 169\.254\.169\.254, which the spec does not name"):
        remote.require_host("169.254.169.254", "minio.local")
    with pytest.raises(remote.Refused, match="sends to localhost, which is not Amazon's"):
        remote.require_host("localhost", None)
    for address, is_private in (("10.1.2.3", True), ("fd00::1", True), ("52.216.1.1", False)):
        monkeypatch.setattr(remote, "_addresses", lambda host, one=address: {one})
        if is_private:
            with pytest.raises(remote.Refused, match="has an address of a private network"):
                remote.require_host("clips.s3.amazonaws.com", None)
        else:
            remote.require_host("clips.s3.amazonaws.com", None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", service)
    with pytest.raises(UserError, match=f"AWS_ENDPOINT_URL names a service, .* name {service} there, too"):
        remote.open_remote("s3://clips/train/none", ("s3://clips",))


def test_what_is_not_there_is_the_clips_fault_and_an_unreachable_service_the_machines(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with pytest.raises(BadClip, match="no such file") as found:
        open_media(Path(), url="s3://clips/train/none.mp4", allowed=(*ALLOWED, service))
    assert found.value.fault is Fault.CLIP
    closed = HTTPServer(("127.0.0.1", 0), Redirecting)
    closed.server_close()
    with pytest.raises(BadClip) as found:
        open_media(
            Path(), url="s3://clips/train/a.mp4", allowed=(*ALLOWED, f"http://127.0.0.1:{closed.server_port}")
        )
    assert found.value.fault is Fault.MACHINE


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    allowed = ("s3://clips", "http://me:secret@127.0.0.1:9")
    for source in ("s3://me:secret@clips/a.csv", "http://me:secret@host/a.csv", "s3://clips/a.csv"):
        with pytest.raises(UserError) as found:
            list(open_source(source, Reading(remote=allowed)).listed)
        assert "secret" not in str(found.value)
    assert "a url holds a user or a password" in str(found.value)
