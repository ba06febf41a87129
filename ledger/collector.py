"""The garbage collector in a process that owns a ledger."""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 50_000  # allocations between two young collections; Python's default is 700


def quiet_collector() -> None:
    """Let Python's cyclic collector run rarely: for processes whose work is the ledger (`serve`, `import`, the bench).

    A message makes some dozens of objects, none in a cycle, so the default makes the collector walk live states many
    times a second to find nothing: about a tenth of the write path's time. What is alive now is left out of its walks.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)
