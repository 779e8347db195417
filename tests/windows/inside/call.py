"""Runs in Windows: `python -m call module.function '[arguments]'` prints its result as JSON."""

import asyncio
import faulthandler
import importlib
import inspect
import json
import sys


def main() -> None:
    faulthandler.dump_traceback_later(float(sys.argv[3]), exit=True)
    module, _, name = sys.argv[1].rpartition(".")
    function = getattr(importlib.import_module(module), name)
    result = function(*json.loads(sys.argv[2]))
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    print(f"\nresult: {json.dumps(result)}", flush=True)


if __name__ == "__main__":
    main()
