"""Keys that were loaded to open what they sealed: of every generation, by their ids."""

from __future__ import annotations

import threading
from collections import OrderedDict

from session_ledger.security.keys import Scope, SealingKey


class OpenedKeys:
    """A bounded cache, in number and time; the key goes that was loaded first. Thread-safe."""

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._lock = threading.Lock()
        self._keys: OrderedDict[tuple[Scope, bytes], SealingKey] = OrderedDict()

    def get(self, scope: Scope, key_id: bytes, now_s: float) -> SealingKey | None:
        """The key, unless its time is over at `now_s` (of a monotonic clock)."""
        key = self._keys.get((scope, key_id))
        if key is None or key.until_s > now_s:
            return key
        self.drop(scope, key_id)
        return None

    def keep(self, key: SealingKey, now_s: float) -> SealingKey:
        """Hold the key, and return it; those whose time is over go."""
        with self._lock:
            while self._keys and next(iter(self._keys.values())).until_s <= now_s:
                self._keys.popitem(last=False)
            while len(self._keys) >= self._keys_max:
                self._keys.popitem(last=False)
            self._keys[key.scope, key.key_id] = key
        return key

    def drop(self, scope: Scope, key_id: bytes) -> None:
        """Forget the key, if it is there."""
        with self._lock:
            self._keys.pop((scope, key_id), None)

    def forget(self, tenant: str, user: str, session_id: bytes | None) -> None:
        """Forget the keys of a session, or (None) of all of a user."""
        with self._lock:
            for place in [place for place in self._keys if place[0][:2] == (tenant, user)]:
                if session_id is None or place[0].session_id == session_id:
                    del self._keys[place]

    def clear(self) -> None:
        """Forget every key."""
        with self._lock:
            self._keys.clear()
