"""What the jobs in the tests run in Windows: processes that try to get away.

Each line `pid N` names a process that must be dead when the job is over; Ready says that all are
there. A `mark` does nothing: it is for whoever looks for such processes from outside.
"""

import ctypes
import msvcrt
import os
import subprocess
import sys
import threading
import time

DETACHED = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
BREAKAWAY = subprocess.CREATE_BREAKAWAY_FROM_JOB


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def forever():
    threading.Event().wait()


def start(*words, **options):
    """Another of these programs. Quiet ones do not hold the output."""
    null = subprocess.DEVNULL
    # Given explicitly, because a detached process does not inherit what it is not given.
    output = null if options.pop("quiet", False) else 1
    options.update(stdin=null, stdout=output, stderr=output)
    return subprocess.Popen([sys.executable, "-S", __file__, *map(str, words)], **options)


def simple():
    say(f"pid {os.getpid()}")
    say("Ready")
    forever()


def wait(*mark):
    forever()


def exits(code):
    ctypes.WinDLL("kernel32").ExitProcess(ctypes.c_uint(int(code)))


def escape(*mark):
    """Leaves a detached process behind, and ends."""
    started = start("wait", *mark, creationflags=DETACHED, quiet=True)
    say(f"pid {started.pid}")
    os._exit(0)


def breakaway():
    """Asks Windows to start a process outside of the job."""
    try:
        started = start("wait", creationflags=DETACHED | BREAKAWAY, quiet=True)
    except OSError as error:
        say(f"refused {error.winerror}")
    else:
        say(f"pid {started.pid}")


def hold_output():
    """A process that keeps the output open, when its parent has ended."""
    started = start("wait", creationflags=subprocess.CREATE_NEW_PROCESS_GROUP)
    say(f"pid {started.pid}")


def tree(count, *mark):
    """`count` processes, each the parent of the next."""
    say(f"pid {os.getpid()}")
    left = int(count) - 1
    if left:
        flags = DETACHED if left % 3 == 0 else 0
        start("tree", left, *mark, creationflags=flags)
    else:
        say("Ready")
    forever()


def obey_break():
    import signal

    for number in (signal.SIGBREAK, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(7))
    say("Ready")
    while True:
        time.sleep(0.1)


def ignore_break():
    import signal

    signal.signal(signal.SIGBREAK, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    simple()


def flood(size):
    block = b"x" * 65535 + b"\n"
    left = int(size)
    while left > 0:
        left -= os.write(1, block[: min(left, len(block))])


def write(text):
    os.write(1, bytes.fromhex(text))


def echo():
    data = sys.stdin.buffer.read()
    say(f"{len(data)}")


def words(*arguments):
    import json

    say(json.dumps(arguments))


def knows_handle(value):
    """Whether the number is a handle of ours that is open."""
    kernel32 = ctypes.WinDLL("kernel32")
    flags = ctypes.c_ulong()
    known = kernel32.GetHandleInformation(ctypes.c_void_p(int(value)), ctypes.byref(flags))
    say(f"known: {bool(known)}")


def terminal():
    """Asks the console itself: Wine gives a process on a pseudo console no standard handles."""
    kernel32 = ctypes.WinDLL("kernel32")
    with open("CONIN$", "rb") as keys, open("CONOUT$", "w", encoding="utf-8") as screen:
        size = (ctypes.c_short * 11)()  # CONSOLE_SCREEN_BUFFER_INFO begins with it
        handle = ctypes.c_void_p(msvcrt.get_osfhandle(screen.fileno()))
        kernel32.GetConsoleScreenBufferInfo(handle, size)
        screen.write(f"{keys.isatty()} {screen.isatty()} {size[0]}x{size[1]}\n")
        answer = ctypes.c_int()
        kernel32.IsProcessInJob(ctypes.c_void_p(-1), None, ctypes.byref(answer))
        screen.write(f"in job: {bool(answer.value)}\n")


def terminal_tree(count):
    """Processes on the terminal, and some that have left it."""
    sys.stdout = open("CONOUT$", "w", encoding="utf-8")  # noqa: SIM115
    say(f"pid {os.getpid()}")
    for number in range(int(count)):
        flags = DETACHED if number % 2 else 0
        say(f"pid {start('wait', creationflags=flags, quiet=True).pid}")
    say("Ready")
    forever()


def is_in_job():
    kernel32 = ctypes.WinDLL("kernel32")
    answer = ctypes.c_int()
    this_process = ctypes.c_void_p(-1)
    kernel32.IsProcessInJob(this_process, None, ctypes.byref(answer))
    say(f"in job: {bool(answer.value)}")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
