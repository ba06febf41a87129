"""Settings from arguments, environment and file, in that order; a setting that is none is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_ledger.domain.errors import InvalidInput, Misconfigured
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_settings
from session_ledger.ledger.settings import Settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory without a settings file."""
    monkeypatch.chdir(tmp_path)


def test_arguments_go_before_environment_before_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fills what the one before leaves."""
    (tmp_path / "session-ledger.toml").write_text('close_timeout_s = 3\nqueue_commands_max = 7\nurl = "memory:"\n')
    monkeypatch.setenv("SESSION_LEDGER_QUEUE_COMMANDS_MAX", "8")
    monkeypatch.setenv("SESSION_LEDGER_METADATA_ALLOW", '["a", "b"]')
    settings = Settings(url="sqlite:x")
    assert ("sqlite:x", 8, 3.0) == (settings.url, settings.queue_commands_max, settings.close_timeout_s)
    assert ("a", "b") == settings.metadata_allow


def test_a_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SESSION_LEDGER_CONFIG names it; one that is not there is an error, not an empty one."""
    (tmp_path / "other.toml").write_text('encryption = "none"\n[kafka_client]\nsecurity_protocol = "SSL"\n')
    monkeypatch.setenv("SESSION_LEDGER_CONFIG", str(tmp_path / "other.toml"))
    assert ("none", {"security_protocol": "SSL"}) == (
        (chosen := open_settings(None, {})).encryption,
        chosen.kafka_client,
    )
    monkeypatch.setenv("SESSION_LEDGER_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(Misconfigured):
        open_settings(None, {})


@pytest.mark.parametrize(
    "content", ["unknown = 1", "queue_commands_max = 0", 'encryption = "rot13"', "not toml", "close_timeout_s = -1"]
)
def test_a_file_that_is_wrong_is_told(tmp_path: Path, content: str) -> None:
    """Unknown names, wrong values and what is no TOML: Misconfigured before anything is opened."""
    (tmp_path / "session-ledger.toml").write_text(content)
    with pytest.raises(Misconfigured):
        Ledger.open(f"sqlite:{tmp_path / 'ledger'}")
    assert not (tmp_path / "ledger").exists()


@pytest.mark.parametrize(
    "options",
    [{"unknown": 1}, {"queue_commands_max": 0}, {"queue_commands_max": "x"}, {"encryption": "nonee"}, {"name": 5}],
    ids=str,
)
@pytest.mark.parametrize("given", [None, Settings()], ids=["options alone", "on settings"])
def test_an_option_that_is_wrong_is_told(tmp_path: Path, given: Settings | None, options: dict[str, object]) -> None:
    """Of `Ledger.open`, with settings or without."""
    with pytest.raises(Misconfigured):
        Ledger.open(f"sqlite:{tmp_path / 'ledger'}", settings=given, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "ledger").exists()


def test_a_wrong_variable_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is checked like the rest."""
    monkeypatch.setenv("SESSION_LEDGER_ENCRYPTION", "rot13")
    with pytest.raises(Misconfigured, match="encryption"):
        Ledger.open("memory:")


def test_options_go_over_the_settings_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """And neither the environment nor the file changes what was given."""
    monkeypatch.setenv("SESSION_LEDGER_CLOSE_TIMEOUT_S", "9")
    given = Settings(close_timeout_s=3, queue_commands_max=5)
    chosen = open_settings(given, {"queue_commands_max": 6})
    assert (3.0, 6) == (chosen.close_timeout_s, chosen.queue_commands_max)


def test_the_url_of_the_settings_is_the_default(tmp_path: Path) -> None:
    """`Ledger.open()` opens it."""
    with Ledger.open(settings=Settings(url=f"sqlite:{tmp_path / 'mine'}")) as ledger:
        assert f"sqlite:{tmp_path / 'mine'}" == ledger.url
    assert (tmp_path / "mine" / "log.db").exists()


def test_sizes_are_settings() -> None:
    """What is too long is told by the rule that was set."""
    with Ledger.open("memory:", content_bytes_max=10, metadata_bytes_max=10, id_bytes_max=10) as ledger:
        session = ledger.create_session("t", "u").session_id
        with pytest.raises(InvalidInput, match="at most 10 bytes"):
            ledger.add_message("t", "u", session, role="user", content="x" * 11)
        with pytest.raises(InvalidInput, match="at most 10 bytes"):
            ledger.create_session("t", "u" * 11)
        with pytest.raises(InvalidInput, match="at most 10 bytes"):
            ledger.create_session("t", "u", metadata={"k": "v" * 10})


def test_every_setting_is_in_the_operations_document() -> None:
    """What can be set is told to those who run a ledger, with its default."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        assert f"| `{name}` | `{field.get_default(call_default_factory=True)}` |" in text
