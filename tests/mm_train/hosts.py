"""Two hosts on this machine: network namespaces with a name and an address each, joined by a cable."""

import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest

PREFIX = f"mm{os.getpid()}"
needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and ip: apt-get install iproute2"
)


@attrs.define
class Host:
    """A host that can be lost: all of its processes end at once."""

    name: str
    namespace: str
    hosts: Path
    """What it has as /etc/hosts."""
    process: subprocess.Popen[bytes] = attrs.field(init=False)
    """What runs on it."""

    def start(self, script: str, log: Path, **variables: str) -> None:
        """Runs lines of bash, in a session of their own; their output is put behind that of earlier ones."""
        inside = f"hostname {self.name}; mount --bind {self.hosts} /etc/hosts; {script}"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "bash", "-c", inside],
                env={**os.environ, **variables},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def lose(self) -> None:
        """Ends what runs on it as a power cut does."""
        for pid in processes_in(self.namespace):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)


def processes_in(namespace: str) -> list[int]:
    """Numbers of the processes of a namespace."""
    shown = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=True)
    return [int(pid) for pid in shown.stdout.split()]


@contextmanager
def two_hosts(folder: Path) -> Generator[tuple[Host, Host]]:
    """Hosts `ha` and `hb`, which find each other by their names."""
    names = ("ha", "hb")
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n10.77.0.1 ha\n10.77.0.2 hb\n")
    found = tuple(Host(name, f"{PREFIX}{name}", hosts) for name in names)
    try:
        for host in found:
            subprocess.run(["ip", "netns", "add", host.namespace], check=True)
        cable = ["ip", "link", "add", "va", "netns", found[0].namespace, "type", "veth", "peer", "name", "vb"]
        subprocess.run([*cable, "netns", found[1].namespace], check=True)
        for index, host in enumerate(found, 1):
            link = f"v{host.name[1]}"
            for words in (
                ["addr", "add", f"10.77.0.{index}/24", "dev", link],
                ["link", "set", link, "up"],
                ["link", "set", "lo", "up"],
            ):
                subprocess.run(["ip", "-n", host.namespace, *words], check=True)
        yield found[0], found[1]
    finally:
        for host in found:
            with suppress(subprocess.CalledProcessError, AttributeError):
                host.lose()
            subprocess.run(["ip", "netns", "delete", host.namespace], check=False, capture_output=True)
