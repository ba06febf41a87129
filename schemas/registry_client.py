"""A schema registry over HTTP: the REST interface of Confluent's, which Apicurio serves as well (`/apis/ccompat/v7`).

The one module that knows httpx; it is imported where a registry is configured and nowhere else.
"""

from __future__ import annotations

import ssl
import time
from typing import NamedTuple
from urllib.parse import quote

import httpx

from session_ledger.domain.errors import Misconfigured, RegistryUnavailable, SessionLedgerError

TIMEOUT_S = 5.0  # to connect, and for each read: a registry answers in milliseconds, its first request in a second
ABSENT_S = 30.0  # a registry that has just started says of ids that it has that there are none
ID_MAX = (1 << 31) - 1
SUBJECT_NOT_FOUND = 40401  # error codes of the interface, in the body of a 404
SCHEMA_NOT_FOUND = 40403
_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_HINT = "Apicurio's ends in /apis/ccompat/v7"


class _Answer(NamedTuple):
    """What came back: `body` is empty where it was no JSON object."""

    status: int
    body: dict[str, object]

    @property
    def error_code(self) -> object:
        """The interface's own code, finer than the status."""
        return self.body.get("error_code")

    @property
    def said(self) -> str:
        """The status and the registry's message."""
        return f"{self.status} {self.body.get('message', '')}".strip()


class RegistryClient:
    """The `Registry` at a URL. Thread-safe. Answers that never change (ids, texts) are remembered."""

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Nothing is asked yet. `user` and `password`: HTTP basic; `token`: bearer. Files are PEM.

        `ca_file`: who signed the registry's certificate, instead of the usual authorities. `cert_file`, `key_file`:
        this client's own. Raises Misconfigured.
        """
        self.url = url.rstrip("/")
        _check_url(url)
        if token is not None and user is not None:
            raise Misconfigured("schema_registry_client: a token or a user, not both")
        headers = {"Accept": _MEDIA_TYPE} | ({} if token is None else {"Authorization": f"Bearer {token}"})
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            auth=None if user is None else httpx.BasicAuth(user, password or ""),
            verify=_tls(ca_file, cert_file, key_file),
            timeout=timeout_s,
            trust_env=False,  # neither a proxy nor a .netrc that happens to lie about may answer for the registry
        )
        self._ids: dict[tuple[str, str], int] = {}
        self._texts: dict[int, str] = {}
        self._absent_since_s: dict[int, float] = {}

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._http.close()

    def id_of(self, subject: str, schema_json: str) -> int:
        """See `Registry`. Looks first: who may only read a registry can write where the schemas are registered."""
        known = self._ids.get((subject, schema_json))
        if known is not None:
            return known
        path, body = f"/subjects/{quote(subject, safe='')}", {"schema": schema_json}
        answer = self._ask("POST", path, body)
        if answer.status == 404 and answer.error_code in (SUBJECT_NOT_FOUND, SCHEMA_NOT_FOUND):
            answer = self._ask("POST", f"{path}/versions", body)
            if answer.status in (409, 422):
                raise Misconfigured(
                    f"the schema registry at {self.url} refuses the schema of {subject} ({answer.said}): it has "
                    "versions of that subject that this one does not agree with; see who registered them"
                )
        schema_id = answer.body.get("id")
        if answer.status != 200 or not isinstance(schema_id, int) or not 0 <= schema_id <= ID_MAX:
            raise self._unusable(answer)
        self._ids[subject, schema_json] = schema_id
        return schema_id

    def text_of(self, schema_id: int) -> str | None:
        """See `Registry`. Only the registry's own word counts as "none", once it has said so for `ABSENT_S`."""
        known = self._texts.get(schema_id)
        if known is not None:
            return known
        answer = self._ask("GET", f"/schemas/ids/{schema_id}")
        if answer.status == 404 and answer.error_code == SCHEMA_NOT_FOUND:
            since_s = self._absent_since_s.setdefault(schema_id, time.monotonic())
            if time.monotonic() - since_s >= ABSENT_S:
                return None
            raise RegistryUnavailable(
                f"the schema registry at {self.url} says that it has no schema with id {schema_id}; one that has just "
                f"started says so of ids that it has, so it is asked again for {ABSENT_S:g} s"
            )
        self._absent_since_s.pop(schema_id, None)
        text = answer.body.get("schema")
        if answer.status != 200 or not isinstance(text, str):  # whatever is wrong: the record may be sound, so wait
            raise RegistryUnavailable(
                f"the schema registry at {self.url} does not tell the schema with id {schema_id} ({answer.said}): see "
                f"that `schema_registry` is right ({_HINT}) and that it lets this reader in; the record is read then"
            )
        self._texts[schema_id] = text
        return text

    def compatibility_of(self, subject: str) -> str:
        """See `Registry`."""
        answer = self._ask("GET", f"/config/{quote(subject, safe='')}?defaultToGlobal=true")
        if answer.status == 404:
            answer = self._ask("GET", "/config")
        return str(answer.body.get("compatibilityLevel", "")) if answer.status == 200 else ""

    def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> _Answer:
        try:
            response = self._http.request(
                method, path, json=body, headers={} if body is None else {"Content-Type": _MEDIA_TYPE}
            )
        except httpx.RequestError as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise RegistryUnavailable(
                f"the schema registry at {self.url} can not be reached ({reason}): see that it runs and that "
                "`schema_registry` names it; nothing is lost, repeat it then"
            ) from error
        if response.status_code >= 500 or response.status_code == 429:
            raise RegistryUnavailable(
                f"the schema registry at {self.url} answers {response.status_code} to {path}: see its log; nothing is "
                "lost, repeat it when it works"
            )
        try:
            parsed = response.json()
        except ValueError:
            parsed = {}
        return _Answer(response.status_code, parsed if isinstance(parsed, dict) else {})

    def _unusable(self, answer: _Answer) -> SessionLedgerError:
        if answer.status in (401, 403):
            return Misconfigured(
                f"the schema registry at {self.url} does not let this writer in ({answer.said}): see "
                "`schema_registry_client`; it must read subjects, and register those that are not there"
            )
        return Misconfigured(f"{self.url} does not answer as a schema registry ({answer.said}): {_HINT}")


def _check_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Misconfigured(f"schema_registry: {error}; it is http://HOST:PORT/PATH, or https") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise Misconfigured(f"schema_registry: http://HOST:PORT/PATH, or https, is wanted; {_HINT}")
    if parsed.userinfo:
        raise Misconfigured("schema_registry: user and password belong in `schema_registry_client`, not in the URL")


def _tls(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    """The context of every connection. Raises Misconfigured for files that are not there or not PEM."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        named = [name for name in (ca_file, cert_file, key_file) if name is not None]
        raise Misconfigured(f"schema_registry_client: {named} can not be used for TLS: {error}") from error
    return context
