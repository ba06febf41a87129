"""`session-ledger audit leaks` and `acknowledge`: what of one user's session came to light in another's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from session_ledger.cli.analytics import By
from session_ledger.cli.audit import Why
from session_ledger.cli.options import AsJson, Url

if TYPE_CHECKING:
    from session_ledger.consumers.leakage import Checked

MOST = 200  # findings in a table
PUBLISHED_S = 60.0  # for a projector that runs to publish what was recorded
FOLLOW_S = 1.0  # between two looks for a new snapshot


def leaks(
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", show_default=False, help="Only what came to light from then on, ISO 8601."),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", metavar="NAME", show_default=False, help="Only in its sessions.")
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", show_default=False, help="Only these; several times."),
    ] = None,
    contents: Annotated[
        bool, typer.Option("--contents/--structure", help="Also what was said, or the structure of events alone.")
    ] = True,
    known: Annotated[bool, typer.Option("--known", help="Look for nothing: show what is recorded.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with each new snapshot, until stopped, and tell what is new.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also findings that were acknowledged.")] = False,
    reason: Why = None,
    by: By = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Look for leaks in the newest snapshot, record what is found, and show what is open. Exit code 1: something is.

    Text that one user's session held first and another's assistant or tool says later; identifying values of any
    length; agents, keys and sessions that two had. Texts are compared in memory and not shown: reveal() shows them. The
    check itself is recorded before anything is opened.
    """
    from session_ledger.cli.opening import settings, url_of
    from session_ledger.cli.output import say, write_json
    from session_ledger.cli.values import time_of
    from session_ledger.consumers.analytics import open_snapshot

    place, moment = url_of(url), time_of(since, "--since")
    if follow:
        if known or everything or not contents or kinds or tenant is not None or since is not None:
            raise typer.BadParameter(
                "goes on over all tenants, kinds and contents: leave the other options out", param_hint="--follow"
            )
        _follow(place, reason, by, as_json)
        return
    checked = None
    if not known:
        checked, recorded = _checked(place, tenant, moment, contents, reason, by)
        _publish(place, recorded)
    with open_snapshot(place, settings=settings()) as snapshot:
        rows = snapshot.connection.sql(
            "SELECT * FROM leaks WHERE ($all OR open) AND ($tenant IS NULL OR tenant = $tenant)"
            " AND ($since IS NULL OR happened_at >= $since) AND ($kinds IS NULL OR list_contains($kinds, kind))"
            " ORDER BY happened_at, position",
            params={"all": everything, "tenant": tenant, "since": moment, "kinds": kinds or None},
        ).to_arrow_table().to_pylist()  # fmt: skip
    _name_imported(place, rows)
    found_open = sum(row["open"] for row in rows)
    if as_json:
        document: dict[str, object] = {"findings": rows, "open": found_open}
        if checked is not None:
            document |= {"messages": checked.messages, "unreadable": checked.unreadable}
        write_json(document)
    else:
        _show(rows)
        if checked is not None:
            gone = f"; {checked.unreadable:,} could not be opened: their keys are gone" if checked.unreadable else ""
            say(f"{checked.messages:,} messages were looked at{gone}")
        say(f"{found_open:,} open findings")
    raise typer.Exit(1 if found_open else 0)


def _checked(
    place: str, tenant: str | None, since: Any, contents: bool, reason: str | None, by: str | None
) -> tuple[Checked, dict[int, int]]:
    """What was found, and up to which positions that is recorded."""
    from session_ledger.cli.opening import settings
    from session_ledger.cli.who import who
    from session_ledger.consumers.analytics import open_snapshot
    from session_ledger.consumers.leakage import check, record
    from session_ledger.ledger.ledger import Ledger
    from session_ledger.ledger.open import open_envelope
    from session_ledger.ledger.url import parse_url

    chosen = settings()
    with open_snapshot(place, settings=chosen) as snapshot, Ledger.open(place, settings=chosen) as ledger:
        tenants = [row[0] for row in snapshot.connection.execute(
            "SELECT DISTINCT tenant FROM sessions WHERE $1 OR $2 IS NULL OR tenant = $2 ORDER BY 1", [contents, tenant]
        ).fetchall()]  # fmt: skip
        for named in tenants:
            ledger.record_audit_read(named, "", read_by=who(by), action="leaks", reason=reason)
        envelope, close = open_envelope(parse_url(place).directory, snapshot.ledger, chosen)
        try:
            found = check(snapshot, envelope, since=since, tenant=tenant, contents=contents)
        finally:
            close()
        recorded = record(ledger, found.leaks)
    return found, recorded


def _publish(place: str, recorded: dict[int, int]) -> None:
    """See that a snapshot holds what was recorded: by publishing one, or by waiting for the projector that runs."""
    import time

    from session_ledger.cli.opening import settings
    from session_ledger.consumers.analytics import Analytics, open_snapshot
    from session_ledger.domain.errors import ProjectionInUse, WaitTimeout

    try:
        with Analytics(place, settings=settings()) as analytics:
            analytics.catch_up()
            analytics.publish()
        return
    except ProjectionInUse:
        deadline_s = time.monotonic() + PUBLISHED_S
    while True:
        with open_snapshot(place, settings=settings()) as snapshot:
            if all(snapshot.positions.get(partition, 0) >= position for partition, position in recorded.items()):
                return
        if time.monotonic() > deadline_s:
            raise WaitTimeout(
                f"the findings are recorded, and the projector that runs has not published them within {PUBLISHED_S:g} "
                "s: see what it says, then `session-ledger audit leaks --known` shows them"
            )
        time.sleep(0.2)


def _name_imported(place: str, rows: list[dict[str, Any]]) -> None:
    """Add the ids that imported sessions had in their source."""
    from session_ledger.cli.export_lines import source_id_of
    from session_ledger.cli.opening import settings
    from session_ledger.consumers.views import Views
    from session_ledger.domain.errors import Forbidden, SessionNotFound

    if not rows:
        return
    with Views.open(place, settings=settings()) as views:
        for row in rows:
            for prefix in ("", "source_"):
                session_id, named = row[f"{prefix}session_id"], None
                if session_id is not None:
                    try:
                        view = views.session(row[f"{prefix}tenant"], row[f"{prefix}user"], str(session_id))
                        named = source_id_of(view) if view.status == "imported" else None
                    except (SessionNotFound, Forbidden):  # a finding may be of a foreign tenant, or not of this user
                        named = None
                row[f"{prefix}imported_id"] = named


def _follow(place: str, reason: str | None, by: str | None, as_json: bool) -> None:
    """Look at each new snapshot, with the index of those before."""
    import time

    from session_ledger.cli.opening import settings
    from session_ledger.cli.output import say, write_json
    from session_ledger.cli.signals import until_stopped
    from session_ledger.cli.who import who
    from session_ledger.consumers.analytics import open_snapshot
    from session_ledger.consumers.leakage import LATE_US, Watch, record
    from session_ledger.ledger.ledger import Ledger
    from session_ledger.ledger.open import open_envelope
    from session_ledger.ledger.url import parse_url

    chosen, looked_at, audited = settings(), None, set[str]()
    waits, looked_s = False, time.monotonic()
    with Ledger.open(place, settings=chosen) as ledger, until_stopped() as stop:
        with open_snapshot(place, settings=chosen) as snapshot:
            name = snapshot.ledger  # which a client of the owner does not know
        envelope, close = open_envelope(parse_url(place).directory, name, chosen)
        try:
            watch = Watch(envelope)
            while not stop.is_set():
                with open_snapshot(place, settings=chosen) as snapshot:
                    settled = waits and time.monotonic() - looked_s > LATE_US / 1_000_000
                    if snapshot.path != looked_at or settled:
                        looked_at, looked_s, waits = snapshot.path, time.monotonic(), not settled
                        found = snapshot.connection.execute("SELECT DISTINCT tenant FROM sessions").fetchall()
                        for tenant in sorted({row[0] for row in found} - audited):
                            ledger.record_audit_read(tenant, "", read_by=who(by), action="leaks", reason=reason)
                            audited.add(tenant)
                        checked = watch.step(snapshot, settled=settled)
                        record(ledger, checked.leaks)
                        for leak in checked.leaks:
                            place_of, source = leak.place, leak.source
                            told = {"finding_id": leak.finding_id.hex(), "kind": leak.kind, "severity": leak.severity}
                            if as_json:
                                write_json({**told, "place": place_of, "source": source, "score": leak.score})
                            else:
                                say(f"{leak.severity} {leak.kind}: {source.tenant}/{source.user} came to light with "
                                    f"{place_of.tenant}/{place_of.user}, finding {leak.finding_id.hex()}")  # fmt: skip
                stop.wait(FOLLOW_S)
        finally:
            close()


def _show(rows: list[dict[str, Any]]) -> None:
    from session_ledger.cli.output import say, table

    if not rows:
        return
    columns = (
        "finding",
        "kind",
        "severity",
        "in session",
        "of",
        "from session",
        "of",
        "length>",
        "score>",
        "direction",
    )
    table(
        columns,
        [
            (
                row["finding_id"], row["kind"], row["severity"], str(row["session_id"]),
                f"{row['tenant']}/{row['user']}", str(row["source_session_id"]),
                f"{row['source_tenant']}/{row['source_user']}", row["length"], f"{float(row['score']):.2f}",
                row["direction"] if row["open"] else f"acknowledged: {row['reason']}",
            )
            for row in rows[:MOST]
        ],
        whole=True,
    )  # fmt: skip
    if len(rows) > MOST:
        say(f"(the first {MOST} of {len(rows):,}: --json gives all)")


def acknowledge(
    finding: Annotated[str, typer.Argument(metavar="FINDING", help="Its id, as `audit leaks` shows it.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="What it is; it is recorded, and readable.")],
    by: By = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Close a finding of a leakage check, with a reason; that is a fact like any other."""
    from session_ledger.cli.opening import settings, url_of
    from session_ledger.cli.output import say, write_json
    from session_ledger.cli.who import who
    from session_ledger.consumers.analytics import open_snapshot
    from session_ledger.domain.errors import FindingNotFound, InvalidInput
    from session_ledger.ledger.ledger import Ledger

    place, chosen = url_of(url), settings()
    try:
        finding_id = bytes.fromhex(finding)
    except ValueError as error:
        raise InvalidInput("FINDING", f"{len(finding)} characters", "must be the 32 hex digits of a finding") from error
    with open_snapshot(place, settings=chosen) as snapshot:
        owners = snapshot.connection.execute(
            "SELECT DISTINCT tenant, user FROM leaks WHERE finding_id = ?", [finding]
        ).fetchall()
    if not owners:
        raise FindingNotFound(f"finding {finding}: the newest snapshot holds no such finding")
    with Ledger.open(place, settings=chosen) as ledger:
        for tenant, user in owners:
            done = ledger.acknowledge_leak(tenant, user, finding_id, acknowledged_by=who(by), reason=reason)
    if as_json:
        write_json({"finding_id": finding, "partition": done.partition, "position": done.position})
    else:
        say(f"finding {finding} is acknowledged, at {done.partition}:{done.position}")
