"""`download_file`: copies a file from the hub to the agent. It appears complete or not at
all (N3).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Optional

from hostler_agent import machine
from hostler_agent.commands.errors import TransferFailed
from hostler_agent.commands.transfer import MAX_FILE_BYTES, Transfer
from hostler_agent.wire import messages
from hostler_agent.wire.errors import WireError


class DownloadFile(Transfer):
    name = "download_file"

    async def transfer(self) -> None:
        path = Path(self.arguments.path("path"))
        maximum = self.arguments.whole("maxsize", MAX_FILE_BYTES)
        mode = self.arguments.whole("mode")
        command_id = self.context.command_id
        try:
            await self.slot.claim([str(path)])
            async with self._temporary(path, mode) as (temporary, file):
                await self._receive(file, path, min(maximum or 0, MAX_FILE_BYTES))
                await self.slot.run(_install, file, temporary, path)
        except OSError as error:
            raise TransferFailed(
                f"Cannot open file '{path}' for download: {error.strerror or error}"
            ) from error
        finally:
            # The file is there, whatever becomes of the hub's own.
            with contextlib.suppress(WireError):
                await self.context.request(messages.UpdateReadFileClose(command_id))

    @contextlib.asynccontextmanager
    async def _temporary(
        self, path: Path, mode: Optional[int]
    ) -> AsyncIterator[tuple[Path, BinaryIO]]:
        """Create a new file beside `path`; yield its path and the open file. It is removed at the
        end unless it was renamed.
        """
        temporary, file = await self.slot.run(_make, path, mode)
        try:
            yield temporary, file
        finally:
            file.close()
            await self.slot.run(temporary.unlink, True)  # if it is still there

    async def _receive(self, file: BinaryIO, path: Path, maximum: int) -> None:
        loop = asyncio.get_running_loop()
        received = 0
        while True:
            # One byte more than allowed tells a file that is too large from one that just fits.
            length = min(self.block_bytes(), maximum - received + 1)
            answer = await self.request(messages.UpdateReadFile(self.context.command_id, length))
            data = self._checked(answer, length, first=received == 0)
            if not data:
                return
            received += len(data)
            if received > maximum:
                raise TransferFailed(f"Maximum filesize reached, truncating file '{path}'")
            await loop.run_in_executor(None, file.write, data)

    def _checked(self, answer: object, length: int, first: bool) -> bytes:
        if isinstance(answer, str):
            answer = answer.encode()
        if answer is None and first:
            # Buildbot's master answers null where its documentation says data; to take that for
            # the end would make every file empty, with success (N4).
            raise TransferFailed(f"{self.name}: the hub sent no data, not even an empty file's")
        if not isinstance(answer, (bytes, type(None))) or len(answer or b"") > length:
            raise TransferFailed(f"{self.name}: the hub sent what is no block of a file")
        return answer or b""


def _make(path: Path, mode: Optional[int]) -> tuple[Path, BinaryIO]:
    """Create a new file beside `path`. Returns its path and the open file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.parent / f".hostler-{secrets.token_hex(8)}"
    return temporary, _create(temporary, path, mode)


def _create(temporary: Path, path: Path, mode: Optional[int]) -> BinaryIO:
    """Create the file with `mode`; if that is None, with the mode of the file that it replaces, or
    else by the umask.
    """
    if mode is None:
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(path.stat().st_mode)
    # It is never readable for more than it will be in the end.
    descriptor = os.open(temporary, machine.CREATE_FLAGS, 0o666 if mode is None else 0o600)
    if mode is not None:
        os.chmod(descriptor if os.chmod in os.supports_fd else temporary, mode & 0o7777)  # noqa: PTH101
    return open(descriptor, "wb", buffering=0)


def _install(file: BinaryIO, temporary: Path, path: Path) -> None:
    os.fsync(file.fileno())
    file.close()
    temporary.replace(path)
    with contextlib.suppress(OSError):  # not every platform can open a directory
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
