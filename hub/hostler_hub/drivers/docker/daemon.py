"""A Docker daemon as the driver uses it: a client of the SDK whose calls run in threads.

The SDK blocks, and a daemon that is stopped or overloaded blocks it for long. So each call runs in
a daemon thread of its own, which the hub does not wait for when it stops. The number of threads per
Docker daemon is limited, so that one daemon that hangs takes no threads from another. The SDK is
imported at the first call: a fleet without containers need not load its 40 MiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from hostler_hub.drivers.docker import hints
from hostler_hub.drivers.docker.errors import Conflict, NoAnswer, NotThere
from hostler_hub.drivers.docker.handle import DockerHandle
from hostler_hub.drivers.docker.options import DockerOptions, Tls
from hostler_hub.drivers.errors import DriverError, OptionsRefused, ProviderFailed
from hostler_hub.runtime import private_files
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.secrets import Secrets

if TYPE_CHECKING:
    from docker import APIClient
    from docker.errors import APIError
    from docker.tls import TLSConfig

T = TypeVar("T")

THREADS = 16


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a daemon and its TLS material. Hashable: there is one client per endpoint."""

    docker_host: str
    tls: Tls | None = None

    @classmethod
    def of(cls, known: DockerOptions | DockerHandle) -> Endpoint:
        """The daemon that options or a handle name."""
        return cls(known.docker_host, known.tls)


class Daemon:
    """The client of one endpoint. It connects at the first call."""

    call_s: ClassVar[float] = 60.0  # a loaded daemon takes its time, a frozen one for ever

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        self.endpoint = endpoint
        self._secrets = secrets
        self._lock = threading.Lock()
        self._client: APIClient | None = None
        self._made_with: Mapping[str, str] = {}
        self._files: tempfile.TemporaryDirectory[str] | None = None
        self._threads = asyncio.Semaphore(THREADS)

    async def ask(self, question: Callable[[APIClient], T], deadline_s: float | None = None) -> T:
        """Call ``question`` with the client, in a thread, and return its result.

        Raises OptionsRefused, NotThere, Conflict, NoAnswer, or another ProviderFailed. The thread
        of a call that was given up ends with the SDK's own timeout.
        """
        deadline_s = deadline_s or self.call_s
        try:
            async with asyncio.timeout(deadline_s):
                await self._threads.acquire()
                return await self._in_thread(question)
        except TimeoutError:
            text = f"docker: {self.endpoint.docker_host} did not answer within {deadline_s:g} s"
            raise NoAnswer(text) from None

    def close(self) -> None:
        """Close the connections. Calls in progress go on in their threads."""
        self._disconnect()
        if self._files is not None:
            self._files.cleanup()
            self._files = None

    def _disconnect(self) -> None:
        """Drop the client. Calls in progress keep their connection until they are answered."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _in_thread(self, question: Callable[[APIClient], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            self._threads.release()
            if answer.cancelled():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result, failure = None, None
            try:
                with self._translate_errors("see driver_options.docker_host and tls"):
                    client = self._connected()
                with self._translate_errors("a value in driver_options is none that the SDK takes"):
                    result = question(client)
            except Exception as error:  # noqa: BLE001 - the thread's boundary: the asker raises it
                failure = error
            with contextlib.suppress(RuntimeError):  # the hub has ended meanwhile
                loop.call_soon_threadsafe(settle, result, failure)

        threading.Thread(target=work, name="docker call", daemon=True).start()
        return answer

    def _connected(self) -> APIClient:
        """The client, with the present certificates; the first call negotiates the API's version
        with the daemon.
        """
        with self._lock:
            material = self._material()
            if material != self._made_with:
                self._disconnect()
            if self._client is None:
                tls = self._tls(material)
                with contextlib.closing(self._new("1.24", tls)) as client:
                    version = client.version(api_version=False)["ApiVersion"]
                self._client, self._made_with = self._new(version, tls), material
            return self._client

    def _material(self) -> dict[str, str]:
        """The TLS material of the options as it is now; it may have been renewed. Raises
        SecretRefused.
        """
        tls = self.endpoint.tls
        names = ("ca", "cert", "key") if tls is not None else ()
        return {name: self._secrets.resolve(getattr(tls, name)) for name in names}

    def _new(self, version: str, tls: TLSConfig | None) -> APIClient:
        from docker import APIClient  # noqa: PLC0415 - see above

        client = APIClient(
            self.endpoint.docker_host,
            version=version,
            timeout=max(1, int(self.call_s)),
            tls=tls or False,
            max_pool_size=THREADS,
        )
        # Otherwise the authorities of REQUESTS_CA_BUNDLE would replace those of the options.
        client.trust_env = False
        return client

    def _tls(self, material: Mapping[str, str]) -> TLSConfig | None:
        """The TLS settings. requests takes certificates as files, opened for each connection."""
        from docker.tls import TLSConfig  # noqa: PLC0415 - see above

        if not material:
            return None
        if self._files is None:
            self._files = tempfile.TemporaryDirectory(prefix="hostler-docker-tls-")
        paths = {name: Path(self._files.name, f"{name}.pem") for name in material}
        for name, content in material.items():
            private_files.write(paths[name], content)
        return TLSConfig(
            client_cert=(str(paths["cert"]), str(paths["key"])),
            ca_cert=str(paths["ca"]),
            verify=True,
        )

    @contextlib.contextmanager
    def _translate_errors(self, likely: str) -> Iterator[None]:
        """Translate the SDK's exceptions into this package's, with the daemon's message. ``likely``
        says what to look at for an exception that the SDK lets through from below it.
        """
        from docker.errors import APIError, DockerException, TLSParameterError  # noqa: PLC0415
        from requests.exceptions import RequestException  # noqa: PLC0415

        where = self.endpoint.docker_host
        try:
            yield
        except APIError as error:
            raise _refusal(where, error) from error
        except (SecretRefused, TLSParameterError) as error:
            raise OptionsRefused(f"docker: driver_options.tls: {error}") from error
        except (RequestException, DockerException, OSError) as error:
            self._disconnect()  # another daemon, or another version of it, may come back
            words = _innermost_words(error)
            raise NoAnswer(f"docker: no answer from {where}: {words}{_hint(words)}") from error
        except DriverError:
            raise
        except Exception as error:
            text = f"docker: {where}: {type(error).__name__}: {error}; {likely}"
            raise ProviderFailed(text) from error


_NOT_REACHED = (
    "; does the daemon run there, and may the hub's user reach it? (driver_options.docker_host)"
)
_NOT_TRUSTED = "; are the certificates those of that daemon, and in date? (driver_options.tls)"


def _refusal(where: str, error: APIError) -> ProviderFailed | OptionsRefused:
    text = hints.with_hint(f"docker: {where}: {error.explanation or error}".strip())
    kinds: dict[int | None, type[ProviderFailed | OptionsRefused]] = {
        400: OptionsRefused,
        404: NotThere,
        409: Conflict,
    }
    return kinds.get(error.status_code, ProviderFailed)(text)


def _hint(words: str) -> str:
    return _NOT_TRUSTED if "SSL" in words or "certificate" in words else _NOT_REACHED


def _innermost_words(error: BaseException) -> str:
    """The text of the innermost exception. The SDK wraps the exception of requests, which wraps
    that of urllib3, which wraps the operating system's.
    """
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error) or type(error).__name__
