"""What the stand-ins share. They do on Wine, from this side, what the modules of their names do on
Windows by PowerShell, which Wine does not have; options are the ones that the role `agent` uses."""

import subprocess
from pathlib import Path

# Of the tests', by PYTHONPATH; nothing that Ansible would pack into the module.
from peers import wine


def here(path):
    """A path of Windows' drive Z, as this side has it."""
    assert path.startswith("Z:\\"), path
    return Path(path[2:].replace("\\", "/"))


def run(argv):
    """(exit code, output, errors)"""
    output, errors = wine.Output(), wine.Output()
    done = subprocess.run(
        ["wine", *argv],
        env=wine.windows().environment,
        stdin=subprocess.DEVNULL,
        stdout=output.target,
        stderr=errors.target,
        check=False,
    )
    return done.returncode, output.close(), errors.close()


def call(scenario, *arguments):
    """A function of tests/windows/inside."""
    return wine.windows().call(scenario, *arguments)
