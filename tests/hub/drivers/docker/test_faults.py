"""A daemon that freezes, dies, hangs or lies, and how little the hub notices."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conformance.drivers import ref_of, spec_of
from docker import APIClient
from docker.errors import ImageNotFound
from peers import docker as peer

from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.docker import DockerDriver, hints
from hostler_hub.drivers.docker.daemon import Daemon, Endpoint
from hostler_hub.drivers.docker.options import Tls
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.secrets import SecretRef, Secrets

pytestmark = [
    pytest.mark.peer("docker"),
    # The SDK leaves its socket to the garbage collector when nobody listens.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


SILENCE = r"did not answer|no answer"


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What the SDK leaves to the garbage collector is not found in the midst of another test."""
    yield
    gc.collect()


@pytest.fixture
async def driver(
    docker_environment: Environment, clear: Callable[[str], None]
) -> AsyncIterator[DockerDriver]:
    made = DockerDriver(docker_environment)
    yield made
    await made.aclose()
    clear(docker_environment.hub)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and what it signed for the daemon and for the hub."""
    made = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=made, check=True, capture_output=True)

    key = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca", "-subj", "/CN=test authority")
    (made / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(
            "req", *key[:3], "-keyout", f"{name}.key", "-out", "request", "-subj", f"/CN={name}"
        )
        signing = ("-CA", "ca", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        openssl("x509", "-req", "-in", "request", *signing, "-days", "2", "-out", name)
    return made


@pytest.fixture
async def tls_url(certificates: Path, docker_url: str) -> AsyncIterator[str]:
    """The daemon behind TLS, for whom the authority has signed."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca")
    context.load_cert_chain(certificates / "server", certificates / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    relays: set[asyncio.Task[Any] | None] = set()
    writers: list[asyncio.StreamWriter] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.add(asyncio.current_task())
        inner = await asyncio.open_unix_connection(docker_url.removeprefix("unix://"))
        writers.extend([writer, inner[1]])
        ways = (carry(reader, inner[1]), carry(inner[0], writer))
        await asyncio.gather(*ways, return_exceptions=True)

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    # Half-closed by one side, a connection would outlive the event loop, and complain of that.
    for writer in writers:
        writer.transport.abort()
    await asyncio.gather(*(each for each in relays if each is not None), return_exceptions=True)
    await asyncio.sleep(0)


@pytest.fixture(scope="module")
def daemon() -> Iterator[peer.Daemon]:
    """One of our own, that may be frozen and killed."""
    with peer.private() as made:
        yield made


@pytest.fixture
async def private_driver(
    docker_environment: Environment, daemon: peer.Daemon
) -> AsyncIterator[DockerDriver]:
    made = DockerDriver(docker_environment)
    yield made
    await made.aclose()


@contextlib.contextmanager
def frozen(daemon: peer.Daemon) -> Iterator[None]:
    """No driver waits long for it meanwhile; for one that answers they do, however slow it is."""
    with pytest.MonkeyPatch.context() as hasty:
        hasty.setattr(Daemon, "call_s", 2.0)
        daemon.freeze()
        try:
            yield
        finally:
            daemon.thaw()


@pytest.fixture
def options(daemon: peer.Daemon) -> dict[str, Any]:
    return {"image": peer.IMAGE, "docker_host": daemon.url, "network_mode": "none"}


async def test_P13_a_frozen_daemon_is_not_believed_to_have_stopped_anything(
    private_driver: DockerDriver, daemon: peer.Daemon, options: dict[str, Any]
) -> None:
    spec = spec_of(options)
    handle = await private_driver.create(spec)
    with frozen(daemon):
        for known in (handle, None):
            with pytest.raises(ProviderFailed, match=SILENCE):
                await private_driver.inspect(ref_of(spec, known))
        with pytest.raises(ProviderFailed, match=SILENCE):
            await private_driver.destroy(ref_of(spec, handle))
        with pytest.raises(ProviderFailed, match=SILENCE):
            await private_driver.list_owned([options])
    assert (await private_driver.inspect(ref_of(spec, handle))).presence is Presence.RUNNING
    await private_driver.destroy(ref_of(spec, handle))
    assert await private_driver.list_owned([options]) == []


async def test_G1_P1_a_create_that_was_done_after_its_deadline_leaks_nothing(
    private_driver: DockerDriver, daemon: peer.Daemon, options: dict[str, Any]
) -> None:
    """The daemon took the order, froze, and carries it out when nobody waits for it any more."""
    await private_driver.list_owned([options])  # connected
    spec = spec_of(options)
    creating = asyncio.create_task(private_driver.create(spec))
    with frozen(daemon):
        with pytest.raises(ProviderFailed):
            await creating
        destroying = asyncio.create_task(private_driver.destroy(ref_of(spec, None)))
    await destroying
    assert await private_driver.list_owned([options]) == []


async def test_G1_a_daemon_that_is_down_says_nothing_of_its_containers(
    private_driver: DockerDriver, daemon: peer.Daemon, options: dict[str, Any]
) -> None:
    spec = spec_of(options)
    handle = await private_driver.create(spec)
    await asyncio.to_thread(daemon.kill)
    for ask in (private_driver.inspect, private_driver.destroy):
        with pytest.raises(ProviderFailed, match="docker: no answer from unix://"):
            await ask(ref_of(spec, handle))
    await asyncio.to_thread(daemon.start)
    seen = await private_driver.inspect(ref_of(spec, handle))
    assert (seen.presence, "exited with exit code" in seen.evidence) == (Presence.GONE, True)
    await private_driver.destroy(ref_of(spec, handle))
    assert await private_driver.list_owned([options]) == []


async def test_a_daemon_that_was_never_there_is_named(driver: DockerDriver, tmp_path: Path) -> None:
    spec = spec_of({"image": "debian", "docker_host": f"unix://{tmp_path}/docker.sock"})
    with pytest.raises(
        ProviderFailed,
        match=rf"unix://{tmp_path}/docker.sock: .*No such file.*run.*driver_options.docker_host",
    ):
        await driver.create(spec)
    # Nobody was told of it, so nobody has to prove it gone: a slip in an option holds no worker up.
    assert await driver.evidence(ref_of(spec, None)) == {}
    assert (await driver.inspect(ref_of(spec, None))).presence is Presence.GONE
    await driver.destroy(ref_of(spec, None))


async def test_a_daemon_elsewhere_is_reached_by_tls(
    docker_environment: Environment, certificates: Path, tls_url: str, clear: Callable[[str], None]
) -> None:
    public = dataclasses.replace(
        docker_environment,
        connect_url="wss://hub.invalid/api/v1/agents/connect",
        secrets=Secrets(certificates),
    )
    names = {"ca": "ca", "cert": "client", "key": "client.key"}
    options = {
        "image": peer.IMAGE,
        "docker_host": tls_url,
        "network_mode": "none",
        "tls": {part: {"file": name} for part, name in names.items()},
    }
    driver = DockerDriver(public)
    spec = spec_of(options)
    handle = await driver.create(spec)
    assert "PRIVATE KEY" not in str(handle)
    (owned,) = await driver.list_owned([options])
    bare = dataclasses.replace(ref_of(spec, owned.handle), options={"image": "gone"})
    await driver.destroy(bare)  # by what the handle says, certificates and all
    assert await driver.list_owned([options]) == []

    wrong = {**options, "tls": {**options["tls"], "ca": {"file": "server"}}}
    with pytest.raises(ProviderFailed, match=r"certificate verify failed.*driver_options.tls"):
        await driver.create(spec_of(wrong))
    missing = {**options, "tls": {**options["tls"], "key": {"file": "nowhere"}}}
    with pytest.raises(OptionsRefused, match=r"driver_options.tls: secret file nowhere"):
        await driver.create(spec_of(missing))
    await driver.aclose()
    clear(public.hub)


async def test_certificates_that_were_renewed_are_used_for_the_next_call(
    certificates: Path, tls_url: str, tmp_path: Path
) -> None:
    """Also on a connection that is open still."""
    names = {"ca": "ca", "cert": "client", "key": "client.key"}
    for name in names.values():
        (tmp_path / name).write_bytes((certificates / name).read_bytes())
    tls = Tls(**{part: SecretRef(file=name) for part, name in names.items()})
    daemon = Daemon(Endpoint(tls_url, tls), Secrets(tmp_path))
    assert (await daemon.ask(lambda client: client.version()))["ApiVersion"]
    (tmp_path / "ca").write_bytes((certificates / "server").read_bytes())
    with pytest.raises(ProviderFailed, match=r"certificate verify failed.*driver_options.tls"):
        await daemon.ask(lambda client: client.version())
    (tmp_path / "ca").write_bytes((certificates / "ca").read_bytes())
    assert (await daemon.ask(lambda client: client.version()))["ApiVersion"]
    daemon.close()


class _Registry(BaseHTTPRequestHandler):
    """A registry that has nothing, or that takes the question and never answers."""

    hangs = threading.Event()
    let_go = threading.Event()

    def do_GET(self) -> None:
        if self.hangs.is_set():
            self.let_go.wait(60)
        self.send_response(200 if self.path == "/v2/" else 404)
        self.end_headers()
        self.wfile.write(b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unheard of"}]}')

    do_HEAD = do_GET  # noqa: N815 - the library's word

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    """Its address; a daemon talks plain HTTP to one on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Registry)
    serving = threading.Thread(target=server.serve_forever, name="registry")
    serving.start()
    _Registry.hangs.clear()
    _Registry.let_go.clear()
    yield f"127.0.0.1:{server.server_port}"
    _Registry.let_go.set()
    server.shutdown()
    serving.join()
    server.server_close()


async def test_an_image_that_is_nowhere_is_told_in_the_daemon_s_words(
    driver: DockerDriver, docker_url: str, registry: str
) -> None:
    image = f"{registry}/nothing:1"
    spec = spec_of({"image": image, "docker_host": docker_url})
    with pytest.raises(ProviderFailed, match=rf"cannot pull {image}: .*unheard of.*s.image"):
        await driver.create(spec)
    never = spec_of({"image": image, "docker_host": docker_url, "pull": "never"})
    with pytest.raises(OptionsRefused, match=f"has no image {image}, and driver_options.pull is n"):
        await driver.create(never)


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("Range of CPUs is from 0.01 to 2.00, as there are only 2", "driver_options.cpus"),
        ("Minimum memory limit allowed is 6MB", "driver_options.memory"),
        ("Requested CPUs are not available - requested 99", "host_config.cpuset_cpus"),
        ("Unknown runtime specified nope", "driver_options.host_config.runtime"),
        ("unknown or invalid runtime name: nope", "driver_options.host_config.runtime"),
        ("--storage-opt is supported only for overlay over xfs", "host_config.storage_opt"),
        ("unable to find user bob: no matching entries in passwd file", "driver_options.user"),
        ("network lab not found", "driver_options.networks"),
        ("does not match the specified platform: wanted linux/s390x", "driver_options.platform"),
        ('invalid mount config for type "bind": bind source', "driver_options.volumes"),
        ("error setting rlimits for ready process: error setting rlimit type 7", "ulimits"),
        ('exec: "python3": executable file not found in $PATH', "driver_options.python"),
        ("write /var/lib/docker/x: no space left on device", "docker system df"),
        ("Disk quota exceeded", "docker system df"),
        ("Client sent an HTTP request to an HTTPS server.", "driver_options.tls"),
    ],
)
def test_what_a_daemon_says_names_the_option(words: str, option: str) -> None:
    told = hints.with_hint(f"docker: unix:///x: {words}")
    assert told.startswith(f"docker: unix:///x: {words}; ")
    assert option in told.removeprefix(f"docker: unix:///x: {words}")


def test_words_that_are_not_known_stand_alone() -> None:
    assert hints.with_hint("docker: it rains") == "docker: it rains"


async def test_G1_a_pull_that_hangs_has_an_end(
    driver: DockerDriver, docker_url: str, registry: str
) -> None:
    _Registry.hangs.set()
    options = {"image": f"{registry}/slow:1", "docker_host": docker_url, "pull_timeout_s": 1.0}
    with pytest.raises(ProviderFailed, match="within 1 s"):
        await driver.create(spec_of(options))
    # And whoever needs no pull is served meanwhile.
    other = spec_of({"image": peer.IMAGE, "docker_host": docker_url, "network_mode": "none"})
    handle = await driver.create(other)
    await driver.destroy(ref_of(other, handle))


async def test_a_dockerfile_is_built_once_and_named_after_what_it_is_made_of(
    driver: DockerDriver,
    docker_environment: Environment,
    docker_client: APIClient,
    docker_url: str,
) -> None:
    context = docker_environment.directory / "contexts" / "greeter"
    context.mkdir(parents=True)
    (context / "words").write_text(f"hello from {context}")
    (context / "secret.key").write_text("never sent")
    (context / ".dockerignore").write_text("*.key\n")
    (context / "Dockerfile").write_text(
        f"FROM {peer.IMAGE}\nARG WHO\nCOPY . /greeter\n"
        "RUN echo $WHO >>/greeter/words && test ! -e /greeter/secret.key\nUSER daemon\n"
    )
    given = {"context": "greeter", "build_args": {"WHO": "me"}, "docker_host": docker_url}
    options = {**given, "network_mode": "none", "command": ["sh", "-c", "cat /greeter/words; id"]}
    images: set[str] = set()
    try:
        for _ in range(2):
            spec = spec_of(options)
            handle = await driver.create(spec)
            await asyncio.to_thread(docker_client.wait, handle["container"], timeout=60)
            evidence = (await driver.inspect(ref_of(spec, handle))).evidence
            assert f"hello from {context}me" in evidence
            assert "uid=1(daemon)" in evidence
            seen = docker_client.inspect_container(handle["container"])
            images.add(seen["Config"]["Image"])
            await driver.destroy(ref_of(spec, handle))
        (image,) = images
        assert image.startswith("hostler-build:")
    finally:
        for image in images:
            docker_client.remove_image(image)


async def test_a_dockerfile_that_fails_is_told_with_its_output(
    driver: DockerDriver, docker_client: APIClient, docker_url: str
) -> None:
    text = f"FROM {peer.IMAGE}\nRUN echo the disk is full && exit 7\n"
    with pytest.raises(ProviderFailed, match=r"(?s)cannot build.*code: 7.*the disk is full"):
        await driver.create(spec_of({"dockerfile": text, "docker_host": docker_url}))
    with pytest.raises(OptionsRefused, match=r"there is no directory .*/contexts/nowhere"):
        await driver.create(spec_of({"context": "nowhere", "docker_host": docker_url}))
    with pytest.raises(ImageNotFound):
        docker_client.inspect_image("hostler-build:latest")
