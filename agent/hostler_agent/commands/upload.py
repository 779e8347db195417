"""`upload_file` and `upload_directory`: copy from the agent to the hub, in blocks."""

from __future__ import annotations

import asyncio
import os
import stat
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, Optional

from hostler_agent import machine
from hostler_agent.commands.errors import TransferFailed
from hostler_agent.commands.tarstream import TarLimits, TarStream
from hostler_agent.commands.transfer import MAX_FILE_BYTES, Transfer
from hostler_agent.wire import messages

MAX_DIRECTORY_BYTES = 4 * 1024**3
_COMPRESSORS = {"gz": "zlib", "bz2": "bz2"}


class UploadFile(Transfer):
    name = "upload_file"

    async def transfer(self) -> None:
        path = self.arguments.path("path")
        maximum = self.arguments.whole("maxsize", MAX_FILE_BYTES)
        keep_times = self.arguments.flag("keepstamp", False)
        await self.output.say("header", f"sending {path}\n")
        command_id = self.context.command_id
        try:
            await self.slot.claim([path], make=False)
            with await self.slot.run(_open, path) as file:
                times = os.fstat(file.fileno())
                await self._send(file, path, min(maximum or 0, MAX_FILE_BYTES))
        finally:
            # Also of a failed one: the hub has a file open.
            await self.request(messages.UpdateUploadFileClose(command_id))
        if keep_times:
            await self.request(
                messages.UpdateUploadFileUtime(command_id, times.st_atime, times.st_mtime)
            )

    async def _send(self, file: BinaryIO, path: str, maximum: int) -> None:
        loop = asyncio.get_running_loop()
        sent = 0
        while data := await loop.run_in_executor(None, file.read, self.block_bytes()):
            sent += len(data)
            if sent > maximum:
                raise TransferFailed(f"Maximum filesize reached, truncating file '{path}'")
            await self.request(messages.UpdateUploadFileWrite(self.context.command_id, data))


class UploadDirectory(Transfer):
    name = "upload_directory"

    async def transfer(self) -> None:
        path = self.arguments.path("path")
        maximum = self.arguments.whole("maxsize", MAX_DIRECTORY_BYTES)
        compress = self.arguments.get("compress")
        if compress not in (None, "", "gz", "bz2"):
            raise self.arguments.wrong("compress", "null, 'gz' or 'bz2'", compress)
        await self.output.say("header", f"sending {path}\n")
        await self.slot.claim([path], make=False)
        if not await self.slot.run(Path(path).is_dir):
            raise TransferFailed(f"Cannot read directory '{path}' for upload: no such directory")
        if compress:
            import_module(_COMPRESSORS[compress])  # the user of a build may not read it where it is
        limits = TarLimits(self.block_bytes(), MAX_DIRECTORY_BYTES)
        stream = TarStream(path, compress or None, limits, self.slot.enter)
        try:
            await self._send(stream, path, maximum)
        finally:
            stream.close()
        # Only of a whole one: half a tree is worse than none.
        await self.request(messages.UpdateUploadDirectoryUnpack(self.context.command_id))

    async def _send(self, stream: TarStream, path: str, maximum: Optional[int]) -> None:
        sent = 0
        while data := await _read(stream, path):
            sent += len(data)
            if maximum is not None and sent > maximum:
                raise TransferFailed(f"Maximum filesize reached, truncating file '{path}'")
            await self.request(messages.UpdateUploadDirectoryWrite(self.context.command_id, data))


async def _read(stream: TarStream, path: str) -> bytes:
    try:
        return await stream.read()
    except OSError as error:
        raise TransferFailed(f"Cannot read directory '{path}' for upload: {error}") from error


def _open(path: str) -> BinaryIO:
    try:
        # Not waiting for the writer of a pipe; a regular file does not mind.
        descriptor = os.open(path, machine.READ_FLAGS)
        file = open(descriptor, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return file
        file.close()
        reason = "not a regular file"
    except OSError as error:
        reason = error.strerror or str(error)
    raise TransferFailed(f"Cannot open file '{path}' for upload: {reason}")
