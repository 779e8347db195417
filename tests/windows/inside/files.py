"""The files' side of Windows: removal, privacy, downloads' flags, decoding, boot."""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hostler_agent import machine
from hostler_agent.commands import removal
from hostler_agent.commands.filework import Progress
from hostler_agent.commands.tree import Tree
from hostler_agent.win32 import api


def removed():
    """A tree with what is hard to remove; what is left of it, and of what it points to."""
    root = Path(tempfile.mkdtemp())
    outside = Path(tempfile.mkdtemp())
    (outside / "precious").write_text("x")
    tree = root / "tree"
    deep = "\\\\?\\" + str(tree)
    os.mkdir(deep)  # noqa: PTH102 - Path does not know such names
    for _ in range(40):
        deep += "\\" + "d" * 20
        os.mkdir(deep)  # noqa: PTH102
    Path(deep, "leaf").write_text("x")
    readonly = tree / "readonly"
    readonly.write_text("x")
    readonly.chmod(0o444)
    link = None
    try:
        (tree / "link").symlink_to(outside, target_is_directory=True)
        link = True
    except OSError as error:
        link = str(error)
    failures = removal.remove(str(tree), Progress())
    return {
        "failures": [str(one) for one in failures],
        "tree": tree.exists(),
        "outside": (outside / "precious").exists(),
        "link": link,
        "absent": removal.remove(str(tree), Progress()),
    }


def in_use():
    """A file that somebody holds open without sharing it: reported, and removed once it is free."""
    tree = Path(tempfile.mkdtemp())
    held = tree / "held"
    held.write_text("x")
    (tree / "free").write_text("x")
    handle = api.create_file(str(held), api.GENERIC_READ, 0)
    failures = removal.remove(str(tree), Progress())
    left = sorted(path.name for path in tree.iterdir())
    handle.close()
    return {
        "failures": [error.winerror for error in failures],
        "left": left,
        "then": [str(error) for error in removal.remove(str(tree), Progress())],
        "gone": not tree.exists(),
    }


def private(path):
    return machine.is_private(Path(path))


def facts():
    return {
        "boot_ids": [machine.boot_id(), machine.boot_id()],
        "memory_mb": machine.memory_mb(),
        "cpus": machine.cpu_count(),
        "name": machine.name(),
        "os": machine.os_release(),
        "shell": machine.shell(),
    }


def boot_id():
    return machine.boot_id()


def opened_log_lets_go():
    """A log that is being read can be renamed and removed by its writer."""
    path = Path(tempfile.mkdtemp()) / "log"
    path.write_bytes(b"a\r\n")
    descriptor = machine.open_log(str(path))
    renamed = path.with_name("log.1")
    path.rename(renamed)
    read = os.read(descriptor, 100)
    renamed.unlink()
    os.close(descriptor)
    return {"read": read.decode("latin-1"), "left": list(map(str, path.parent.iterdir()))}


def binary_flags():
    """What is read and written through our flags stays as it is, line ends and ^Z included."""
    path = Path(tempfile.mkdtemp()) / "file"
    data = b"a\r\nb\n\x1ac\r\n"
    writing = os.open(path, machine.CREATE_FLAGS, 0o600)
    os.write(writing, data)
    os.close(writing)
    reading = os.open(path, machine.READ_FLAGS)
    read = os.read(reading, 100)
    os.close(reading)
    return path.read_bytes() == data == read


def decoded(code_page, text):
    """Bytes that a program writes on a console of that code page, as a stock master gets them."""
    ctypes.WinDLL("kernel32").SetConsoleOutputCP(code_page)
    decoder = machine.output_decoder()
    return decoder.decode(bytes.fromhex(text), final=True)


def arguments(words, script=None):
    """How a program, or a batch file that calls it, sees the arguments it was given."""
    import asyncio

    import jobs

    if script is None:
        return asyncio.run(jobs.run([sys.executable, "-S", jobs.CHILD, "words", *words]))
    path = Path(tempfile.mkdtemp()) / script
    path.write_text(f'@"{sys.executable}" -S "{jobs.CHILD}" words %*\n')
    return asyncio.run(jobs.run([str(path), *words], {"allow_batch": True}))


def batch_without_asking():
    import asyncio

    import jobs

    path = Path(tempfile.mkdtemp()) / "build.bat"
    path.write_text("@echo run\n")
    tried = [str(path), str(path)[:-4], f"{path}.", f"{path} ", f"{path}::$DATA"]
    return [asyncio.run(jobs.run([one, "&calc"])) for one in tried]


def not_here():
    """A program beside the agent's working directory is not found by its bare name."""
    import asyncio

    import jobs

    where = Path(tempfile.mkdtemp())
    (where / "evil.exe").write_bytes(Path(sys.executable).read_bytes())
    os.chdir(where)
    return asyncio.run(jobs.run(["evil", "--version"], {"workdir": str(where)}))


def short_lived(count):
    """Time for one `cmd /c exit` in a job and without one, in milliseconds."""
    import asyncio
    import time

    import jobs

    from hostler_agent.jobs.run import Job

    async def ours():
        async with jobs.containment() as chosen:
            for _ in range(count):
                await Job(jobs.plan_of(["cmd", "/c", "exit"]), chosen, jobs.Sink()).run()

    begun = time.perf_counter()
    asyncio.run(ours())
    mine = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in range(count):
        subprocess.run(["cmd", "/c", "exit"], capture_output=True, check=True)
    bare = time.perf_counter() - begun
    return {"job_ms": mine / count * 1000, "bare_ms": bare / count * 1000}


def opened(root, paths):
    """For each path what its file holds, None for a directory, or why it is not opened."""
    tree = Tree(root)
    told = {}
    for path in paths:
        try:
            file = tree.open(path)
        except OSError as error:
            told[path] = error.strerror.partition(" of ")[0]
            continue
        told[path] = None
        if file is not None:
            with file:
                told[path] = file.read().decode()
    tree.close()
    return {**told, "names": tree.names("out")}


def refused(path):
    try:
        machine.refuse_new_name(path)
    except OSError as error:
        return error.strerror
    return None
