"""The clock of what must end in time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from session_ledger.security import elapsed
from session_ledger.security.elapsed import elapsed_s
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.keyring import MemoryKeyring
from session_ledger.security.vault_memory import MemoryVault


@pytest.mark.skipif(not Path("/proc/uptime").exists(), reason="only Linux tells how long it has been up")
def test_it_goes_on_while_the_machine_is_suspended() -> None:
    """It is the time since the machine was started, which a machine that sleeps counts too."""
    before = elapsed_s()
    up_s = float(Path("/proc/uptime").read_text().split()[0])
    assert before - 0.02 <= up_s <= elapsed_s() + 0.02  # told in hundredths
    assert elapsed._CLOCK == time.CLOCK_BOOTTIME  # a machine that never slept shows no difference


def test_keys_in_memory_go_by_it() -> None:
    """A key that was unwrapped before the machine slept is not used when it wakes."""
    envelope = VaultEnvelope("support", MemoryVault(), MemoryKeyring())
    users = (envelope, envelope._tenants, envelope.vault_pseudonyms)
    assert {elapsed_s} == {one._monotonic_s for one in users}
