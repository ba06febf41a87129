"""What `verify --check` and `verify-receipt` share: a signed note that somebody brings, and the public key alone."""

from __future__ import annotations

from pathlib import Path


def check_note(file: Path, key: str, title: str, what: str, as_json: bool) -> None:
    """Show the note's lines where that key has signed them. `title`: its first line; `what`: the note in words.

    Raises InvalidInput (the key is none), ProofInvalid.
    """
    from session_ledger.cli.output import clean, say, write_json
    from session_ledger.domain.errors import ProofInvalid
    from session_ledger.security.checkpoint import named_by_ledger
    from session_ledger.security.signing import Verifier

    verifier = named_by_ledger(Verifier.parse(key))
    lines = verifier.proven_text(file.read_bytes(), str(file)).splitlines()
    if lines[:1] != [title]:
        raise ProofInvalid(f"{file} is signed by {verifier.name}, but is not {what}: it does not begin with {title!r}")
    if as_json:
        write_json({"ok": True, "signed_by": verifier.name, "key_id": verifier.key_id, "lines": lines})
        return
    for line in lines:
        say(clean(line))
    say(f"signed by {verifier.name}, and not changed since")
