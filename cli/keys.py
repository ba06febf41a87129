"""`session-ledger keys`: the keyring, what the vault holds, and rotations. No command shows a key's bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from session_ledger.cli.options import DEFAULT_TENANT, AsJson, CommandId, TakeOver, Tenant, Url, User

app = typer.Typer(no_args_is_help=True, help="Make a keyring, look at keys, and rotate them; print public keys.")
rotate = typer.Typer(no_args_is_help=True, help="Put a new key in the place of one; the log stays as it is.")
app.add_typer(rotate, name="rotate")


@app.command()
def init(
    path: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Default: as set, or keyring.json of the ledger."),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make a keyring: a file that only this user may read, with one fresh wrapping key."""
    from session_ledger.cli.keys_opened import keyring_to_make
    from session_ledger.cli.output import clean, say, write_json
    from session_ledger.security.keyring import Keyring

    keyring = Keyring.create(keyring_to_make(url, path))
    if as_json:
        write_json({"keyring": str(keyring.path), "primary": keyring.primary})
        return
    say(f"keyring {clean(keyring.path)} made, with wrapping key {keyring.primary}")
    say("back it up now, apart from log and vault: whatever is sealed needs it")


@app.command("list")
def list_keys(url: Url = None, as_json: AsJson = False) -> None:
    """List the tenants' keys: generation, age, what wraps them, and how many data keys they wrap."""
    from session_ledger.cli.keys_shown import show_keys
    from session_ledger.ledger.keys_report import tenant_keys

    show_keys(tenant_keys(*_vault_of(url)), as_json)


@app.command()
def status(url: Url = None, as_json: AsJson = False) -> None:
    """Say which key service wraps, what the vault holds, and what a rotation should finish."""
    from session_ledger.cli.keys_shown import show_status
    from session_ledger.cli.opening import settings
    from session_ledger.ledger.keys_report import status_of

    directory, now_us = _vault_of(url)
    show_status(status_of(directory, settings(), now_us), as_json)


@rotate.command("tenant")
def rotate_tenant(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Whose key.")],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make a new key of a tenant, wrap its data keys by it, and drop the old one; run again, it finishes that.

    The vault is written anew, so that its files hold no wrapping of before.
    """
    from session_ledger.cli.keys_opened import open_keys
    from session_ledger.cli.keys_shown import OWN
    from session_ledger.cli.output import clean, say, write_json

    with open_keys(url) as keys:
        done = keys.rotation.rotate_tenant(tenant)
        keys.vault.scrub(thorough=True)
    if as_json:
        write_json(done)
        return
    begun = "finished the rotation that had begun" if done.resumed else "rotated"
    say(f"tenant {clean(tenant) or OWN}: {begun}, generation {done.generation} wraps {done.rewrapped} data keys anew")
    if done.pseudonyms:
        say(f"{done.pseudonyms} ways back from pseudonyms, their key among them, are sealed by it too")
    say(f"{done.dropped} older generations are gone from the vault" if not done.kept else _kept(done.kept))


def _kept(count: int) -> str:
    return f"{count} older generations still wrap something: run this again"


@rotate.command("provider")
def rotate_provider(url: Url = None, as_json: AsJson = False) -> None:
    """Wrap the tenants' keys by a new key of the key service. Run again, it finishes what it began.

    A keyring gets a new primary key, and keeps the old ones: backups need them. AWS KMS wraps by the key that is set.
    The vault is written anew, so that its files hold no wrapping of before.
    """
    from session_ledger.cli.keys_opened import open_keys, renewed
    from session_ledger.cli.output import say, write_json

    with open_keys(url) as keys:
        renewed(keys)
        done = keys.rotation.rotate_provider()
        keys.vault.scrub(thorough=True)
    if as_json:
        write_json(done)
        return
    say(f"{done.provider_key_id} wraps {done.tenant_keys} tenant keys anew")
    if done.data_keys:
        say(f"{done.data_keys} data keys of a vault of version 1 are wrapped by their tenant's key now")


@rotate.command("session")
def rotate_session(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")],
    user: User,
    tenant: Tenant = DEFAULT_TENANT,
    reason: Annotated[str, typer.Option(metavar="WORD", help="Why; readable by everybody.")] = "requested",
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Seal a live session by a new data key from now on."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger

    with open_ledger(url, take_over) as ledger:
        result = ledger.rotate_session_key(tenant, user, session, reason=reason, command_id=command_id)
    answer(result, f"session {result.session_id} is sealed by generation {result.generation} from now on", as_json)


@app.command()
def pseudonym(
    user: User,
    tenant: Tenant = DEFAULT_TENANT,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Say how the log, SQL and Parquet name a user; the id itself, where the ledger has no pseudonyms."""
    from session_ledger.cli.opening import open_reader, recorded_as, url_of
    from session_ledger.cli.output import clean, say, write_json

    place = url_of(url)
    with open_reader(place) as (log, _):
        found = recorded_as(place, log, tenant, user)
    if as_json:
        write_json({"tenant": tenant, "recorded_as": found})
        return
    say(clean(found))


def _vault_of(url: str | None) -> tuple[Path, int]:
    """(the ledger's directory, now in microseconds since the epoch)."""
    from session_ledger.cli.keys_opened import directory_of
    from session_ledger.ledger.clocks import machine_clock_us

    return directory_of(url), machine_clock_us()
