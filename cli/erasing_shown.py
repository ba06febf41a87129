"""What `erase` shows: erasures and how far each is; one that is recorded, and carried out by another process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_ledger.domain.errors import SessionLedgerError

if TYPE_CHECKING:
    from session_ledger.consumers.eraser import Progress
    from session_ledger.domain.results import Recorded

WHO_ELSE = (
    "whoever owns the ledger does: a running `session-ledger serve`, or `session-ledger erase status` by a user who "
    "may open the ledger's files"
)


def why_not(error: SessionLedgerError | OSError) -> str:
    """Why this process can not carry out what is recorded; one line."""
    from session_ledger.cli.failing import os_error_text, text_of
    from session_ledger.cli.output import clean

    return clean(text_of(error) if isinstance(error, SessionLedgerError) else os_error_text(error))


def show_recorded(recorded: Recorded, shown: Progress | None, why: str | None, as_json: bool) -> None:
    """What a command to erase did. `shown`: how far it is; None: it is not known, for the reason `why`.

    Without a reason: it was erased before.
    """
    from session_ledger.cli.output import say, write_json

    place, erasures = _place(recorded.partition, recorded.position), [] if shown is None else [shown]
    if as_json:
        told = {name: getattr(recorded, name) for name in ("partition", "position", "command_id", "repeated")}
        write_json({"erasures": [document(one) for one in erasures], "recorded": told, "not_carried_out": why})
    elif why is None or erasures:
        show(erasures, nothing="that was erased before: see `session-ledger erase status`")
    else:
        say(f"the erasure is recorded, by command {recorded.command_id}, and can not be undone")
        say(f"  recorded in {place}, or before that where the same was erased before")
        say(f"  this process can not carry it out: {why}")
        say(f"  {WHO_ELSE}; `session-ledger erase status --all` there shows its id")


def show(erasures: list[Progress], *, nothing: str) -> None:
    """Erasures for people; where there is none, that."""
    from session_ledger.cli.output import clean, say
    from session_ledger.consumers.erasure_receipt import none_found
    from session_ledger.domain.ids import format_id

    if not erasures:
        say(nothing)
    for one in erasures:
        erasure = one.erasure
        whose = f"tenant {erasure.tenant}" + (f", user {erasure.user}" if erasure.user else "")
        if erasure.session_id is not None:
            whose += f", session {format_id(erasure.session_id)}"
        say(f"erasure {format_id(erasure.event_id)}: {clean(whose)}")
        say(f"  recorded in {_place(erasure.partition, erasure.position)}, for {clean(erasure.requested_by)}")
        if erasure.destroyed_at is not None:
            gone = "its data keys are destroyed: what they sealed can not be opened any more"
            say(f"  {gone if erasure.keys else none_found(erasure)}")
        for store, (detail, _) in sorted(one.confirmed.items()):
            say(f"  {store}: confirmed, {detail}")
        for store, detail in sorted(one.waiting.items()):
            say(f"  {store}: waiting, {detail}")
        for user in one.held:
            say(f"  user {clean(user)}: kept, a legal hold forbids it")
        if erasure.completed_at is None:
            say("  not complete yet: `session-ledger erase status` goes on with it")
        else:
            say(f"  complete; `session-ledger erase receipt {format_id(erasure.event_id)}` writes the signed receipt")


def _place(partition: int, position: int) -> str:
    where = "the control log" if partition < 0 else f"partition {partition}"
    return f"{where}, position {position}"


def document(one: Progress) -> dict[str, object]:
    """An erasure for machines."""
    from session_ledger.consumers.records import as_datetime, as_datetime_or_none
    from session_ledger.domain.ids import format_id

    erasure = one.erasure
    return {
        "erasure": format_id(erasure.event_id),
        "partition": erasure.partition,
        "position": erasure.position,
        "tenant": erasure.tenant,
        "user": erasure.user or None,
        "session_id": None if erasure.session_id is None else format_id(erasure.session_id),
        "requested_by": erasure.requested_by,
        "reason": erasure.reason,
        "recorded_at": as_datetime(erasure.recorded_at),
        "keys_destroyed": erasure.keys,
        "destroyed_at": as_datetime_or_none(erasure.destroyed_at),
        "completed_at": as_datetime_or_none(erasure.completed_at),
        "confirmed": {store: detail for store, (detail, _) in one.confirmed.items()},
        "waiting": one.waiting,
        "held": one.held,
    }
