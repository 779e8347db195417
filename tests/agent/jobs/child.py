"""What the jobs in the tests run: processes that try to get away. Prints Ready when they are there.

Each line `pid N` names a process that must be dead when the job is over.
"""

import os
import signal
import sys


def ready() -> None:
    print("Ready", flush=True)


def tell() -> None:
    print(f"pid {os.getpid()}", flush=True)


def forever() -> None:
    while True:
        signal.pause()


def simple() -> None:
    ready()
    forever()


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    simple()


def obey_sigterm() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    simple()


def stopped() -> None:
    ready()
    os.kill(os.getpid(), signal.SIGSTOP)


def process_group() -> None:
    """A child in the same group."""
    if os.fork() == 0:
        tell()
        forever()
    ready()
    forever()


def escape(*how: str) -> None:
    """Leaves a process behind by two forks, and ends: in a session of its own (setsid), without
    its environment (bare), without the output (quiet), deaf to SIGTERM. Ends by itself, unless it
    is to linger."""
    reading, writing = os.pipe()
    between = os.fork()
    if between == 0:
        if "setsid" in how:
            os.setsid()
        if os.fork() == 0:
            _stay(writing, how)
        os._exit(0)
    os.close(writing)
    os.read(reading, 1)
    os.waitpid(between, 0)  # or it might live a moment longer than this process, and be counted
    ready()
    if "linger" in how:
        forever()


def leave_a_parent(pipe: str) -> None:
    """Leaves a process behind, and its parent, which ends when somebody writes to the pipe."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            _stay(writing, ("quiet",))
        _be_quiet()
        with open(pipe) as told:
            told.read()
        os._exit(0)
    os.read(reading, 1)
    ready()


def _be_quiet() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def _stay(writing: int, how: tuple) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell()
    os.write(writing, b"x")
    os.close(writing)
    if "quiet" in how:
        _be_quiet()
    if "bare" in how:
        os.execve("/bin/sleep", ["sleep", "1000"], {})
    forever()


def tree(count: str) -> None:
    """`count` processes, up to three below each, some in sessions of their own."""
    reading, writing = os.pipe()
    _grow(0, int(count), writing)
    met = 0
    while met < int(count) - 1:
        met += len(os.read(reading, 4096))
    ready()
    forever()


def _grow(index: int, count: int, writing: int) -> None:
    for child in range(3 * index + 1, min(3 * index + 4, count)):
        if os.fork() == 0:
            if child % 7 == 0:
                os.setsid()
            tell()
            _grow(child, count, writing)
            os.write(writing, b"x")
            forever()


def bomb() -> None:
    """Forks for ever; Ready when it can no more."""
    told = False
    while True:
        try:
            os.fork()
        except BlockingIOError:  # noqa: PERF203
            if not told:
                ready()
            told = True


def hog(size: str) -> None:
    """Takes so many bytes of memory, and touches them."""
    blocks = [bytearray(b"x" * 2**20) for _block in range(int(size) // 2**20)]
    print("taken", len(blocks), flush=True)


def hog_below(size: str) -> None:
    """A child takes the memory, and this process tells of its end by an exit code."""
    pid = os.fork()
    if pid == 0:
        hog(size)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    sys.exit(3 if status else 0)


def fork_until_refused() -> None:
    """Tells how many children it could have at once."""
    count = 0
    while count < 200:
        try:
            pid = os.fork()
        except BlockingIOError:
            break
        if pid == 0:
            os.closerange(0, 3)
            forever()
        count += 1
    print("children", count, flush=True)


def spin(seconds: str) -> None:
    """Uses all of the processors it gets, for so long by the clock."""
    import time

    for _ in range((os.cpu_count() or 1) - 1):
        if os.fork() == 0:
            break
    ends = time.monotonic() + float(seconds)
    while time.monotonic() < ends:
        pass


def leave(target: str, *how: str) -> None:
    """Leaves its cgroups, for `target` (a cgroup.procs file, or "all" for the topmost of each
    hierarchy), and then a process in a session of its own, which may also lose its environment
    (bare) and its mark (unmarked). Ends by itself, unless it is to linger."""
    import resource

    for procs in _topmost() if target == "all" else [target]:
        with open(procs, "w") as file:
            file.write("0")
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if "unmarked" in how:
            resource.setrlimit(10, (7, resource.getrlimit(10)[1]))
        tell()
        os.close(writing)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.execve("/bin/sleep", ["sleep", "1000"], {} if "bare" in how else os.environ)
    os.close(writing)
    os.read(reading, 1)
    ready()
    if "linger" in how:
        forever()


def _topmost() -> list[str]:
    found = []
    with open("/proc/self/mountinfo") as mounts:
        for line in mounts:
            fields, _, rest = line.partition(" - ")
            procs = fields.split()[4] + "/cgroup.procs"
            if rest.split()[0] in ("cgroup", "cgroup2") and os.access(procs, os.W_OK):
                found.append(procs)
    return found


def flood(size: str) -> None:
    block = b"x" * 65535 + b"\n"
    left = int(size)
    while left > 0:
        os.write(1, block[: min(left, len(block))])
        left -= len(block)


def terminal() -> None:
    print(os.isatty(0), os.isatty(1), os.isatty(2), os.tcgetpgrp(0) == os.getpgrp())
    ready()


def report() -> None:
    with open("/proc/self/oom_score_adj") as adjustment:
        print("oom", adjustment.read().strip())
    print("descriptors", sorted(os.listdir("/proc/self/fd"))[:-1])  # noqa: PTH208
    print("ignored", signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN)
    print("stdin", repr(sys.stdin.read()))


def slowly(path: str) -> None:
    """Appends to a log each time it gets a signal."""
    with open(path, "a") as log:
        signal.signal(signal.SIGTERM, lambda *_: log.write("more\n") and log.flush())
        log.write("first\n")
        log.flush()
        simple()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
