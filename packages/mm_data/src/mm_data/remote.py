"""Objects over the network: of buckets and a service that a spec names, without redirects.

What may be read is a list such as `("s3://clips/train", "http://10.0.0.5:9000")`: urls of buckets or of
folders in them, and the S3 service where it is not Amazon's. Addresses of private networks are answered by
a service that is named alone. Credentials come from the environment or the user's AWS files, never from a
url or a spec.
"""

from __future__ import annotations

import errno
import io
import ipaddress
import os
import re
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from mm_config.schema import Problem, UserError
from mm_config.specs import DatasetSpec, FolderSpec, IndexSpec, MixtureSpec

SCHEME = "s3"
BLOCK_BYTES = 2**22
"""What is fetched at a time."""
AMAZON = (".amazonaws.com", ".amazonaws.com.cn")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
T = TypeVar("T")


class Refused(ValueError):
    """A url that may not be read, or a host that may not be asked."""


def allowed(url: str, remote: Sequence[str]) -> str:
    """The url of an object or a folder that may be read.

    Raises:
        Refused: It is none, or `remote` does not name it or a folder above it.
    """
    parts = urlsplit(url)
    if parts.scheme != SCHEME:
        raise Refused(f"only s3:// is read over the network, not {parts.scheme}://")
    if "@" in parts.netloc or parts.query or parts.fragment or not parts.netloc or "\\" in url or "\0" in url:
        raise Refused("a url must be s3://BUCKET/KEY")
    if any(part in (".", "..") for part in parts.path.split("/")):
        raise Refused("`..` is not allowed in a url")
    if not any(f"{url}/".startswith(f"{one.rstrip('/')}/") for one in remote if one.startswith("s3://")):
        named = ", ".join(without_password(one) for one in remote if one.startswith("s3://")) or "nothing"
        raise Refused(
            f"a url that may not be read; --remote s3://{parts.netloc}, or the spec's `remote`, allows it "
            f"(allowed is {named})"
        )
    return url


def without_password(url: str) -> str:
    """A url as messages name it: whoever wrote it may have put a password in."""
    return re.sub(r"(?<=://)[^/\s]*@", "***@", url)


def allowed_by(dataset: DatasetSpec) -> tuple[str, ...]:
    """What a dataset's spec allows to be read over the network."""
    if isinstance(dataset, MixtureSpec):
        return tuple(dict.fromkeys(one for part in dataset.parts for one in allowed_by(part.dataset)))
    return dataset.remote if isinstance(dataset, FolderSpec | IndexSpec) else ()


def open_remote(url: str, remote: Sequence[str]) -> BinaryIO:
    """An object's bytes, fetched in blocks as they are asked for.

    Raises:
        Refused: The url may not be read.
        OSError: There is no such object, or the service can't be reached.
        UserError: What reads it is not installed, or `remote` names no service that can be asked.
    """
    key = allowed(url, remote).removeprefix("s3://")
    service = _service(tuple(remote))
    file = _asked(lambda: service.open(key, "rb", block_size=BLOCK_BYTES, cache_type="readahead"))
    return io.BufferedReader(_Object(file), 2**16)


def state_of(url: str, remote: Sequence[str]) -> str:
    """What tells that an object is another than it was; empty where there is none. Raises as `open_remote`
    does."""
    key, service = allowed(url, remote).removeprefix("s3://"), _service(tuple(remote))
    try:
        return _state(_asked(lambda: service.info(key)))
    except FileNotFoundError:
        return ""


def states_below(url: str, remote: Sequence[str]) -> dict[str, str]:
    """The objects of a folder and of those in it, relative to it, by name, each with its state.

    Raises:
        Refused: The url may not be read.
        OSError: The service can't be reached.
    """
    folder = allowed(url, remote).removeprefix("s3://").rstrip("/") + "/"
    service = _service(tuple(remote))
    found = _asked(lambda: service.find(folder, detail=True))
    return {key.removeprefix(folder): _state(found[key]) for key in sorted(found) if not key.endswith("/")}


def states_of(urls: Iterable[str], remote: Sequence[str]) -> dict[str, str]:
    """The state of each object, as `state_of` gives it; folders that hold several of them are listed instead.

    Raises as `open_remote` does.
    """
    by_folder: defaultdict[str, list[str]] = defaultdict(list)
    for url in urls:
        by_folder[url.rpartition("/")[0]].append(url)
    states: dict[str, str] = {}
    for folder, inside in by_folder.items():
        if len(inside) == 1 or not _is_allowed(folder, remote):
            states |= {url: state_of(url, remote) for url in inside}
        else:
            found = states_below(folder, remote)
            states |= {url: found.get(url.removeprefix(f"{folder}/"), "") for url in inside}
    return states


def _is_allowed(url: str, remote: Sequence[str]) -> bool:
    try:
        allowed(url, remote)
    except Refused:
        return False
    return True


def _state(found: Mapping[str, Any]) -> str:
    return f"{found.get('size')} bytes, {found.get('ETag')}"


class _Object(io.RawIOBase):
    """An object whose failures are the system's, so that the network's are told from the clip's."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self.file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = _asked(lambda: self.file.read(len(buffer)))
        buffer[: len(found)] = found
        return len(found)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


def _asked(ask: Callable[[], T]) -> T:
    """What the service answers; whatever else its library raises is the network's fault."""
    try:
        return ask()
    except Refused:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such object") from error
    except Exception as error:
        # A library's own error would be taken for a damaged clip; so would a denied access.
        raise OSError(errno.EHOSTDOWN, f"{type(error).__name__}: {error}"[:200]) from error


@cache
def _service(remote: tuple[str, ...]) -> Any:
    """The S3 service of a list, asked without redirects, at its own hosts alone."""
    try:
        import s3fs
    except ModuleNotFoundError as error:
        raise UserError("s3:// needs s3fs, which is not installed: pip install 'mm-data[s3]'") from error
    if any("@" in urlsplit(one).netloc for one in remote):
        problem = "a url holds a user or a password, which come from the environment or the user's AWS files"
        raise UserError(Problem("remote", problem))
    named = [one for one in remote if urlsplit(one).scheme in ("http", "https")]
    wrong = [one for one in remote if urlsplit(one).scheme not in ("http", "https", SCHEME)]
    if wrong or len(named) > 1:
        problem = f"expected s3://BUCKET and at most one http(s):// service, got {', '.join(remote)}"
        raise UserError(Problem("remote", problem))
    given = next((variable for variable in ENDPOINTS if os.environ.get(variable)), None)
    if given and not named:
        problem = f"{given} names a service, and `remote` doesn't: name {os.environ[given]} there, too"
        raise UserError(Problem("remote", problem))
    endpoint = named[0] if named else None
    found: Any = s3fs.S3FileSystem(
        endpoint_url=endpoint,
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={
            "ignore_configured_endpoint_urls": True,
            "connect_timeout": 10,
            "read_timeout": 60,
            "retries": {"total_max_attempts": 2, "mode": "standard"},
        },
    )
    host = urlsplit(endpoint).hostname if endpoint else None

    def only_there(request: Any, **_: Any) -> None:
        require_host(urlsplit(request.url).hostname or "", host)

    found.connect()
    found.s3.meta.events.register("before-send.s3", only_there)
    return found


def require_host(host: str, named: str | None) -> None:
    """Raises Refused where a host is neither the named service's nor, without one, Amazon's public one."""
    if named is not None:
        if host != named and not host.endswith(f".{named}"):
            raise Refused(f"the service sends to {host}, which the spec does not name")
        return
    if not host.endswith(AMAZON):
        raise Refused(f"the service sends to {host}, which is not Amazon's")
    if not all(ipaddress.ip_address(address).is_global for address in _addresses(host)):
        raise Refused(f"{host} has an address of a private network; name it in `remote` to allow that")


def _addresses(host: str) -> set[str]:
    return {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
