"""Settings: what is understood, and what each mistake says."""

from __future__ import annotations

import datetime as dt

import pytest

from churnkit.errors import SettingsError
from churnkit.settings import fill, from_mapping, load


def test_what_is_left_out_has_a_default():
    """An empty file is a workspace in UTC and euros that raises on bad rows."""
    settings = from_mapping({})
    assert (settings.zone, settings.currency, settings.invalid) == ("UTC", "EUR", "raise")


def test_spans_and_tables_are_read():
    """Spans of time are written in words, and [tables] holds `invalid` beside its sections."""
    settings = from_mapping({"tables": {"invalid": "drop", "accounts": {"known_after": "6h"}},
                             "targets": {"churn": {"horizon": "60d"}}})
    assert settings.invalid == "drop"
    assert settings.tables["accounts"].known_after == dt.timedelta(hours=6)
    assert settings.targets["churn"].horizon == dt.timedelta(days=60)


@pytest.mark.parametrize(("wrong", "mend"), [
    ({"tabels": {}}, "Did you mean 'tables'?"),
    ({"tables": {"acounts": {}}}, "Did you mean 'accounts'?"),
    ({"tables": {"accounts": {"colums": {}}}}, "Did you mean 'columns'?"),
    ({"tables": {"accounts": {"columns": {"acount_id": "id"}}}}, "Did you mean 'account_id'?"),
    ({"zone": "Mars"}, "write for instance 'UTC'"),
    ({"targets": {"churn": {"lead": "soon"}}}, "Write a whole number and a unit"),
    ({"schema_version": 99}, "Upgrade churnkit"),
    ({"value": {"margin": 5}}, "less than or equal to 1"),
    ({"outbox": "postgresql://me:hunter2@host/db"}, "${DB_PASSWORD}"),
    ({"tables": {"accounts": {"source": "postgresql://me:hunter2@host/db"}}}, "${DB_PASSWORD}"),
])
def test_each_mistake_names_its_mend(wrong, mend):
    """One paragraph with the key and what to do; never the secret itself."""
    with pytest.raises(SettingsError) as error:
        from_mapping(wrong)
    assert mend in str(error.value)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


def test_secrets_come_from_the_environment(monkeypatch):
    """${NAME} is filled in; one that is not set says how to set it."""
    monkeypatch.setenv("DB_PASSWORD", "s3cret")
    assert fill("postgresql://me:${DB_PASSWORD}@host/db") == "postgresql://me:s3cret@host/db"
    monkeypatch.delenv("DB_PASSWORD")
    with pytest.raises(SettingsError, match="export DB_PASSWORD"):
        fill("postgresql://me:${DB_PASSWORD}@host/db")


def test_a_url_with_its_password_in_the_environment_is_accepted():
    """That is how it should be written."""
    assert from_mapping({"outbox": "postgresql://me:${DB_PASSWORD}@host/db"}).outbox.startswith("postgresql://")


def test_environment_variables_replace_keys(monkeypatch):
    """CHURNKIT_CRM replaces `crm`."""
    monkeypatch.setenv("CHURNKIT_CRM", "memory")
    assert from_mapping({"crm": "files"}).crm == "memory"


@pytest.mark.parametrize(("content", "mend"), [
    (b"name = ", "strings need quotes"), (b"\xff\xfe", "Save the file as UTF-8"),
    (b"name = 3", "must be text in quotes")])
def test_broken_files_are_errors_in_words(tmp_path, content, mend):
    """TOML that cannot be read names the file and the mend."""
    (tmp_path / "churnkit.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=mend):
        load(tmp_path)


def test_no_workspace_says_how_to_make_one(tmp_path):
    """A folder without churnkit.toml is no workspace."""
    with pytest.raises(SettingsError, match="churnkit init"):
        load(tmp_path)
