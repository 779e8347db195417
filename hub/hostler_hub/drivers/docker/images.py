"""Makes sure that a daemon has an image: inspects, pulls or builds it, each under a deadline."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostler_hub.drivers.docker.daemon import Daemon
from hostler_hub.drivers.docker.errors import NotThere
from hostler_hub.drivers.docker.options import LABEL_PREFIX, DockerOptions
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.secrets import Secrets

if TYPE_CHECKING:
    from docker import APIClient

BUILT = "hostler-build"
DOCKERFILE = "Dockerfile"
CONTEXT_BYTES = 256 * 1024 * 1024
LAST_LINES = 10


@dataclass(frozen=True, slots=True)
class Image:
    """An image. ``user`` is the user that its containers run as; empty for root."""

    name: str
    user: str


class Images:
    """The images of all workers. An image that several workers need is pulled or built
    only once.
    """

    def __init__(self, contexts: Path, secrets: Secrets) -> None:
        self._contexts = contexts
        self._secrets = secrets
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ensure(self, daemon: Daemon, options: DockerOptions) -> Image:
        """Make sure that the daemon has the image. Raises OptionsRefused or ProviderFailed."""
        if options.image is None:
            return await self._built(daemon, options)
        if options.pull == "always":
            await self._pull(daemon, options, options.image)
        try:
            return await daemon.ask(lambda client: _inspect(client, options.image or ""))
        except NotThere:
            if options.pull == "never":
                raise OptionsRefused(
                    f"docker: {daemon.endpoint.docker_host} has no image {options.image}, and "
                    "driver_options.pull is never: put it there (docker load), or set pull to "
                    "missing"
                ) from None
        async with self._locks[daemon.endpoint.docker_host, options.image]:
            return await self._pulled(daemon, options, options.image)

    async def _pulled(self, daemon: Daemon, options: DockerOptions, name: str) -> Image:
        try:
            return await daemon.ask(lambda client: _inspect(client, name))
        except NotThere:
            await self._pull(daemon, options, name)
        return await daemon.ask(lambda client: _inspect(client, name))

    async def _pull(self, daemon: Daemon, options: DockerOptions, name: str) -> None:
        login = self._login(options)

        def pull(client: APIClient) -> None:
            repository, tag = _split(name)
            client.reload_config()  # the logins of the hub's user, who may have renewed one
            progress = client.pull(
                repository,
                tag=tag,
                stream=True,
                decode=True,
                auth_config=login,
                platform=options.platform,
            )
            _read_progress(progress, options.pull_timeout_s)

        what = f"cannot pull {name}"
        await _ask_within(daemon, pull, options.pull_timeout_s, what, _HINT_OF_PULL)

    def _login(self, options: DockerOptions) -> dict[str, str] | None:
        if options.registry is None:
            return None
        try:
            password = self._secrets.resolve(options.registry.password)
        except SecretRefused as error:
            raise OptionsRefused(f"docker: driver_options.registry: {error}") from error
        return {"username": options.registry.username, "password": password}

    async def _built(self, daemon: Daemon, options: DockerOptions) -> Image:
        """Build the image unless it exists. Its name is a digest of its context and build
        options.
        """
        context = await asyncio.to_thread(self._context, options)
        digest = hashlib.sha256(context)
        for part in (options.target, options.platform, *sorted(options.build_args.items())):
            digest.update(repr(part).encode())
        name = f"{BUILT}:{digest.hexdigest()[:32]}"
        async with self._locks[daemon.endpoint.docker_host, name]:
            try:
                return await daemon.ask(lambda client: _inspect(client, name))
            except NotThere:
                await self._build(daemon, options, name, context)
            return await daemon.ask(lambda client: _inspect(client, name))

    async def _build(
        self, daemon: Daemon, options: DockerOptions, name: str, context: bytes
    ) -> None:
        def build(client: APIClient) -> None:
            client.reload_config()  # see _pull
            progress = client.build(
                fileobj=io.BytesIO(context),
                custom_context=True,
                tag=name,
                rm=True,
                forcerm=True,
                decode=True,
                buildargs=dict(options.build_args),
                target=options.target or "",
                platform=options.platform,
                labels={f"{LABEL_PREFIX}image": "built"},
            )
            _read_progress(progress, options.build_timeout_s)

        await _ask_within(daemon, build, options.build_timeout_s, "cannot build the Dockerfile")

    def _context(self, options: DockerOptions) -> bytes:
        """The build context as a tar archive. The same files yield the same bytes."""
        files = dict(self._files(options))
        if options.dockerfile is not None:
            files[DOCKERFILE] = options.dockerfile
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name in sorted(files):
                _add(archive, name, files[name])
                if buffer.tell() > CONTEXT_BYTES:
                    raise OptionsRefused(
                        f"docker: driver_options.context {options.context} is larger than "
                        f"{CONTEXT_BYTES} bytes; list what is not needed in .dockerignore"
                    )
        return buffer.getvalue()

    def _files(self, options: DockerOptions) -> Iterator[tuple[str, Path | str]]:
        from docker.utils import exclude_paths  # noqa: PLC0415 - the SDK comes with the first use

        if options.context is None:
            return
        root = self._contexts / options.context
        if not root.is_dir() or root.is_symlink():
            raise OptionsRefused(
                f"docker: driver_options.context: there is no directory {root} at the hub"
            )
        ignore = root / ".dockerignore"
        patterns = ignore.read_text().splitlines() if ignore.is_file() else []
        wanted = [line for line in patterns if line.strip() and not line.startswith("#")]
        for name in exclude_paths(str(root), wanted, dockerfile=DOCKERFILE):
            yield name, root / name


_HINT_OF_PULL = (
    "; see driver_options.image, registry (who may read it) and pull_timeout_s, or put the image "
    "there and set pull to never"
)


def _inspect(client: APIClient, name: str) -> Image:
    seen: Mapping[str, Any] = client.inspect_image(name)  # type: ignore[no-untyped-call]
    if not isinstance(seen, dict):  # another resource of the API's: a name can lead there
        raise OptionsRefused(f"docker: driver_options.image: {name!r} is no image's name")
    config = seen.get("Config") or {}
    return Image(name, config.get("User") or "")


def _split(name: str) -> tuple[str, str | None]:
    """Split a name into repository and tag. A digest stays with the repository, as the
    SDK expects.
    """
    if "@" in name:
        return name, None
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, "latest"
    return repository, tag


async def _ask_within(
    daemon: Daemon,
    question: Callable[[APIClient], None],
    deadline_s: float,
    what: str,
    hint: str = "",
) -> None:
    where = daemon.endpoint.docker_host
    try:
        await daemon.ask(question, deadline_s)
    except ProviderFailed as error:
        reason = str(error).removeprefix(f"docker: {where}: ")
        raise ProviderFailed(f"docker: {where} {what}: {reason}{hint}") from error


def _read_progress(progress: Iterable[Any], deadline_s: float) -> None:
    """Read the progress messages of a pull or build to the end. Raises ProviderFailed for an error,
    which the daemon reports in a message and not by a status, and after `deadline_s`.
    """
    ends_at = time.monotonic() + deadline_s
    said: list[str] = []
    for line in progress:
        if "error" in line:
            last = "".join(said[-LAST_LINES:]).strip()
            raise ProviderFailed(line["error"] + (f" ({last})" if last else ""))
        if line.get("stream"):
            said.append(line["stream"])
        if time.monotonic() > ends_at:
            raise ProviderFailed(f"not done within {deadline_s:g} s")


def _add(archive: tarfile.TarFile, name: str, source: Path | str) -> None:
    """Add a file to the build context. A symbolic link is added as a link, so that no file outside
    the context is sent.
    """
    if isinstance(source, str):
        content = source.encode()
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o644
        archive.addfile(entry, io.BytesIO(content))
        return
    entry = archive.gettarinfo(str(source), name)
    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
    if entry.isreg():
        with source.open("rb") as file:
            archive.addfile(entry, file)
    elif entry.isdir() or entry.issym():
        archive.addfile(entry)
