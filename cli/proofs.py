"""`session-ledger checkpoint`, `keys`, `proof` and what `verify --log` does: evidence that nothing was changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.options import AsJson, Url

if TYPE_CHECKING:
    from session_ledger.consumers.proofs import Prover
    from session_ledger.consumers.verify_log import LogFindings
    from session_ledger.security.checkpoint import Checkpoint

proof = typer.Typer(help="Proofs about the log that need no trust in the ledger.", no_args_is_help=True)

Partition = Annotated[int, typer.Option(metavar="P", min=-1, help="Its number; -1: the control log.")]
MirrorDir = Annotated[
    Path | None,
    typer.Option("--mirror", metavar="DIR", show_default=False, help="Copies of all checkpoints, for outsiders."),
]
BundleAsJson = Annotated[bool, typer.Option("--json", help="Taken as everywhere; a bundle is JSON without it.")]
NoUrl = Annotated[
    str | None,
    typer.Option("--url", "-u", metavar="URL", show_default=False, help="Taken as everywhere; no ledger is asked."),
]
AtCheckpoint = Annotated[
    int | None,
    typer.Option("--checkpoint", metavar="SIZE", min=1, show_default=False, help="Default: the newest checkpoint."),
]


def checkpoint(
    once: Annotated[bool, typer.Option("--once", help="Sign what is there now, and leave.")] = False,
    every_records: Annotated[
        int, typer.Option("--every-records", metavar="N", min=1, help="Sign when a partition grew by so many.")
    ] = 10_000,
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="Sign what is not signed after so long.")
    ] = "60s",
    mirror: MirrorDir = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Sign a checkpoint of each partition's Merkle tree, again and again, until SIGINT or SIGTERM.

    One process does this for a ledger, on one machine: the key is signing.key in the ledger's directory, made where
    there is none. What follows the last checkpoint is not protected, and a rollback of the whole ledger is found only
    with a checkpoint that is kept elsewhere: --mirror.
    """
    from session_ledger.cli.opening import acknowledged, settings, url_of
    from session_ledger.cli.output import clean, say, warn, write_json
    from session_ledger.cli.signals import until_stopped
    from session_ledger.cli.values import seconds_of
    from session_ledger.consumers.checkpointer import Checkpointer

    every_s = seconds_of(every, "--every") or 0.0
    place = url_of(url)
    to = acknowledged(place) if once else None
    with Checkpointer(
        place, settings=settings(), mirror=mirror, on_unusable=lambda text: warn(clean(text))
    ) as checkpointer:
        if once:
            try:
                records = checkpointer.catch_up(to)
            finally:
                signed = checkpointer.sign_all()
            if as_json:
                write_json({"records": records, "signed": [_document(one) for one in signed]})
            else:
                say(f"{records:,} records came in; {len(signed)} checkpoints signed")
                for one in signed:
                    say(f"  {_told(one)}")
            return
        with until_stopped() as stop:
            stopped = checkpointer.run(
                stop,
                every_records=every_records,
                every_s=every_s,
                on_signed=lambda one: write_json(_document(one)) if as_json else say(f"signed {_told(one)}"),
                on_trouble=lambda error: warn(clean(error)),
            )
        for error in stopped.values():
            raise error


def _document(one: Checkpoint) -> dict[str, object]:
    return {"origin": one.origin, "partition": one.partition, "tree_size": one.size, "root": one.root.hex()}


def _told(one: Checkpoint) -> str:
    return f"{one.origin} over {one.size:,} records, root {one.root.hex()[:16]}..."


def verifier(partition: Partition = 0, url: Url = None, as_json: AsJson = False) -> None:
    """Print the public key of a partition's checkpoints, in signed-note form; give it to whoever is to check them."""
    from session_ledger.cli.opening import open_reader, url_of
    from session_ledger.cli.output import say, write_json
    from session_ledger.consumers.proofs import signer_of
    from session_ledger.domain.errors import InvalidInput
    from session_ledger.ledger.url import parse_url
    from session_ledger.security.checkpoint import origin_of

    place = url_of(url)
    with open_reader(place) as (log, _):
        if partition >= len(log.partitions):
            raise InvalidInput("--partition", f"{partition}", f"must be from -1 to {len(log.partitions) - 1}")
        origin = origin_of(log.name, partition)
        found = str(signer_of(parse_url(place).directory, log.name).verifier.named(origin))
    if as_json:
        write_json({"origin": origin, "verifier": found})
    else:
        say(found)


def _prover(url: str | None) -> Prover:
    from session_ledger.cli.opening import settings, url_of
    from session_ledger.cli.output import clean, warn
    from session_ledger.consumers.proofs import Prover

    return Prover(url_of(url), settings=settings(), on_unusable=lambda text: warn(clean(text)))


@proof.command("inclusion")
def inclusion(
    position: Annotated[int, typer.Option(metavar="N", min=1, help="Of the record.")],
    partition: Partition = 0,
    at: AtCheckpoint = None,
    url: Url = None,
    as_json: BundleAsJson = False,
) -> None:
    """Prove that a record stands in the log that a checkpoint is signed over. Writes the bundle as JSON."""
    from session_ledger.cli.output import write_json

    with _prover(url) as prover:
        write_json(prover.inclusion(partition, position, at))


@proof.command("consistency")
def consistency(
    first: Annotated[int, typer.Option("--from", metavar="N", min=1, help="The size of the earlier checkpoint.")],
    second: Annotated[int, typer.Option("--to", metavar="M", min=1, help="The size of the later one.")],
    partition: Partition = 0,
    url: Url = None,
    as_json: BundleAsJson = False,
) -> None:
    """Prove that the log of one checkpoint is the beginning of that of another. Writes the bundle as JSON."""
    from session_ledger.cli.output import write_json

    with _prover(url) as prover:
        write_json(prover.consistency(partition, first, second))


@proof.command("session")
def session(
    session_id: Annotated[str, typer.Argument(metavar="SESSION", help="Its id.")],
    at: AtCheckpoint = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", show_default=False, help="Default: stdout.")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Prove that these are all events of a session: each one's inclusion, and the last one's number."""
    from session_ledger.cli.output import clean, json_line, say, write_file, write_json

    with _prover(url) as prover:
        bundle = prover.session(session_id, at)
    if output is None:
        write_json(bundle)
        return
    write_file(output, json_line(bundle) + "\n")
    events, size = len(bundle["events"]), bundle["tree_size"]  # type: ignore[arg-type]
    if as_json:
        told = {name: bundle[name] for name in ("session_id", "partition", "tree_size")}
        write_json({"file": str(output), **told, "events": events})
    else:
        say(clean(f"{output}: {events:,} events of session {bundle['session_id']}, as signed over {size:,} records"))


@proof.command("verify")
def verify_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A bundle that `proof` wrote.")],
    key: Annotated[str, typer.Option(metavar="KEY", help="The public key that `keys verifier` printed.")],
    url: NoUrl = None,
    as_json: AsJson = False,
) -> None:
    """Check a proof with the public key alone: no ledger and no other key is needed. Exit code 1 if it does not hold.

    What an inclusion or a session bundle holds is the records as they stand in the log; contents stay sealed.
    """
    import json

    from session_ledger.cli.output import clean, say, write_json
    from session_ledger.domain.errors import InvalidInput
    from session_ledger.security.bundles import check_bundle
    from session_ledger.security.signing import Verifier

    named = Verifier.parse(key)
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInput("FILE", f"{file}, which is no JSON", "must be a bundle of `session-ledger proof`") from error
    proven = check_bundle(document, named)
    if as_json:
        records = [
            {"position": leaf.position, "version": leaf.version, "topic": leaf.topic, "schema": leaf.schema}
            for leaf in proven.leaves
        ]
        write_json(
            {
                "ok": True,
                "kind": proven.kind,
                "origin": proven.origin,
                "tree_size": proven.tree_size,
                "root": proven.root,
                "session_id": proven.session_id,
                "last_version": proven.last_version,
                "ended": proven.ended,
                "records": records,
            }
        )
    else:
        say(f"holds: {clean(proven.summary)}")


# --- verify --log -----------------------------------------------------------------------------------------------------


def verify_the_log(
    url: str | None, mirror: Path | None, files: list[Path] | None, key: str | None, as_json: bool
) -> None:
    """What `verify --log` does; ends with exit code 1 where anything was found."""
    import dataclasses

    from session_ledger.cli.ledger_state import counting
    from session_ledger.cli.opening import open_reader, settings, url_of
    from session_ledger.cli.output import write_json
    from session_ledger.consumers.checked_log import check_log
    from session_ledger.ledger.url import parse_url

    place = url_of(url)
    with open_reader(place) as (log, codec):
        total = sum(partition.end() for partition in (log.control, *log.partitions))
        with counting("records checked", total, as_json) as on_progress:
            found = check_log(
                log, codec, parse_url(place), settings(), mirror=mirror, files=files or (), key=key,
                on_progress=on_progress,
            )  # fmt: skip
    if as_json:
        fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
        write_json(
            {"ok": found.ok, **{name: value for name, value in fields.items() if name not in ("rows", "compared")}}
        )
    else:
        _show(found)
    raise typer.Exit(0 if found.ok else 1)


def _show(found: LogFindings) -> None:
    from session_ledger.cli.output import clean, say, say_findings

    say(f"{found.records:,} records read, compared with {sum(found.checkpoints.values()):,} checkpoints, "
        f"{sum(found.kept_outside.values()):,} of them kept outside of the ledger")  # fmt: skip
    for partition, end in sorted(found.ends.items()):
        name = "control log" if partition < 0 else f"partition {partition}"
        protected, outside = found.protected.get(partition, 0), found.protected_outside.get(partition, 0)
        stored = f"; the stored tree agrees up to {found.trees[partition]:,}" if partition in found.trees else ""
        say(f"  {name}: {end:,} records; signed up to {protected:,}, so the last {end - protected:,} are not protected;"
            f" against a rollback: up to {outside:,}{stored}")  # fmt: skip
    if found.trees_unusable is not None:
        say(f"no stored tree was compared: {clean(found.trees_unusable)}")
    if found.views_unusable is not None:
        say(clean(found.views_unusable))
    if not any(found.kept_outside.values()):
        say(
            "no checkpoint from outside was given: a rollback of the whole ledger, or another history shown to somebody"
        )
        say(
            "else, can not be seen. `session-ledger checkpoint --mirror DIR`, DIR copied elsewhere, then --mirror here."
        )
    if found.ok and found.uncompared:
        names = ", ".join("the control log" if one < 0 else f"partition {one}" for one in found.uncompared)
        say(f"what was compared agrees; nothing signed was there to compare {names} with")
    else:
        say_findings(found)
