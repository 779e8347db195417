"""The agent in a console of its own, and somebody who presses CTRL_C there."""

import subprocess
import sys

BREAK = "import sys; from hostler_agent.jobs.windows.ctrl_break import main; main(int(sys.argv[1]))"


def interrupted(token_file, workdir):
    # Nobody listens there: it tries for ever.
    options = ["--hub", "ws://127.0.0.1:9/", "--name", "alone", "--token-file", token_file]
    process = subprocess.Popen(
        [sys.executable, "-m", "hostler_agent", "run", *options, "--workdir", workdir],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        creationflags=subprocess.CREATE_NO_WINDOW,
    )
    said = ""
    while "serves" not in said:
        said += process.stdout.readline()
    null = subprocess.DEVNULL
    subprocess.run(
        [sys.executable, "-c", BREAK, str(process.pid)],
        stdin=null,
        stdout=null,
        stderr=null,
        creationflags=subprocess.DETACHED_PROCESS,
        check=True,
    )
    try:
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    return {"code": process.returncode, "said": said + rest}
