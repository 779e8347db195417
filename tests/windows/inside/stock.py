"""A stock buildbot-worker: `python -m stock SITE create|run ...`, whose packages are in SITE."""

import os
import sys


def main() -> None:
    site, action, *words = sys.argv[1:]
    sys.path[:0] = [site, site + r"\win32", site + r"\win32\lib"]
    os.add_dll_directory(site + r"\pywin32_system32")
    if action == "create":
        from buildbot_worker.scripts.runner import run

        protocol = "--protocol=msgpack_experimental_v7"
        sys.argv = ["buildbot-worker", "create-worker", "--quiet", protocol, *words]
    else:
        from twisted.scripts.twistd import run

        os.chdir(words[0])
        sys.argv = ["twistd", "--no_save", "-y", "buildbot.tac"]
    run()


if __name__ == "__main__":
    main()
