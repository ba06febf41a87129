"""A process that appends to a log as fast as it can and prints each batch that was acknowledged, until it is killed.

    python -m tests.log.writer_process MODULE:FUNCTION ARGUMENT [PAUSE]

`FUNCTION(ARGUMENT)` opens the log for writing; it pauses so many seconds after each batch. A line is
``BATCH_ID FIRST_POSITION COUNT``.
"""

from __future__ import annotations

import random
import sys
from importlib import import_module
from time import sleep

from session_ledger.ledger.log.port import Log
from tests.log.conformance import batch


def main(opener: str, argument: str, pause_s: str = "0") -> None:
    """Append batches of 1 to 200 records for ever."""
    module, function = opener.split(":")
    log = getattr(import_module(module), function)(argument)
    assert isinstance(log, Log)
    partition, rng = log.partitions[0], random.Random()
    end = partition.end()
    while True:
        records = batch(end, rng.choice([1, 2, 10, 64, 65, 200]), by="child", size=360)
        partition.append(records)
        print(records[0].batch_id.hex(), records[0].position, len(records), flush=True)
        end += len(records)
        sleep(float(pause_s))


if __name__ == "__main__":
    main(*sys.argv[1:])
