"""A process for `run_apart`: says its process id, then does as it was told."""

from __future__ import annotations

import os
import sys
import time

from session_ledger.consumers.apart import run_apart, told


def main() -> None:
    """`sleep`: for a minute; `fail`: at once; `parent`: start two others that sleep."""
    task = told() if sys.argv[1:] != ["parent"] else {"do": "parent"}
    print(os.getpid(), flush=True)
    if task["do"] == "sleep":
        time.sleep(60)
    elif task["do"] == "fail":
        raise ValueError("on purpose")
    elif task["do"] == "parent":
        tasks = [{"do": "sleep"}] * 2
        run_apart(
            "tests.consumers.apart_worker", tasks, lambda which, line: print(line, end="", flush=True), what="tests"
        )


if __name__ == "__main__":
    main()
