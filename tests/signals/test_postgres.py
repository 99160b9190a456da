"""PostgreSQL, for real: a source of raw tables, and an engine whose features equal those of DuckDB."""

from __future__ import annotations

import datetime as dt

import pandas as pd
import psycopg
import pytest
import sqlalchemy as sa
from engine_books import SHAPES, book, catalog, features, on, points, same
from test_golden import CUTOFFS, MAPPING

from churnkit.errors import DataError, FeatureError, SettingsError
from churnkit.settings import from_mapping
from churnkit.signals import compute
from churnkit.signals.compute import compute_features, compute_group
from churnkit.signals.engines import opened
from churnkit.signals.features import groups
from churnkit.signals.on_postgres import PREFIX
from churnkit.signals.points import points_at
from churnkit.signals.tables import Tables, frame, read_tables


@pytest.fixture
def url(postgres, monkeypatch):
    """The database's address as a workspace writes it, its user from the environment."""
    address = sa.make_url(postgres)
    login = [text for text in (address.username, address.password) if text]
    monkeypatch.setenv("PG_TEST_USER", ":".join(login))
    return f"postgresql://${{PG_TEST_USER}}@{address.host}:{address.port or 5432}/{address.database}"


@pytest.fixture
def server(postgres):
    """A connection to the same database."""
    with psycopg.connect(postgres.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


ACCOUNTS = "CREATE TABLE accounts AS SELECT 'A1' AS account_id, timestamptz '2024-01-01 00:00+00' AS created_at"


def read(root, **tables) -> Tables:
    """The tables of a workspace in Berlin."""
    return read_tables(from_mapping({"zone": "Europe/Berlin", "covers_until": "2026-01-01", "tables": tables}, root))


def test_every_type_is_read_as_it_was_written(url, server, tmp_path):
    """Times with a zone and without, decimals, dates, flags; numbers, uuids and documents as ids."""
    server.execute("CREATE TYPE size AS ENUM ('big', 'small'); CREATE TABLE clients (id uuid, born date, size size)")
    server.execute("INSERT INTO clients VALUES ('6f9619ff-8b86-d011-b42d-00cf4fc964ff', '2024-07-01', 'big')")
    server.execute("CREATE TABLE contracts (client uuid, begun timestamptz, over timestamp, price numeric, "
                   "auto boolean, ref jsonb, seats int, months smallint)")
    server.execute("INSERT INTO contracts VALUES ('6f9619ff-8b86-d011-b42d-00cf4fc964ff', '2024-07-01 00:00+00',"
                   "'2025-07-01 12:00:00.123456', 1234.56, true, '\"x\"', 7, 12), "
                   "('6f9619ff-8b86-d011-b42d-00cf4fc964ff', '2024-07-01 05:00+05', "
                   "null, null, null, null, null, null)")
    tables = read(
        tmp_path,
        accounts={"source": url, "table": "clients",
                  "columns": {"account_id": "id", "created_at": "born", "segment": "size"}},
        subscriptions={"source": url, "table": "contracts", "columns": {
            "account_id": "client", "started_at": "begun", "ended_at": "over", "mrr": "price", "auto_renew": "auto",
            "subscription_id": "ref", "billing_months": "months"}})
    (client,) = tables["accounts"].to_dict("records")
    assert client["account_id"] == "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
    assert client["created_at"] == pd.Timestamp("2024-06-30 22:00", tz="UTC")  # a date is its midnight in Berlin
    assert client["segment"] == "big"
    full, empty = tables["subscriptions"].to_dict("records")
    assert full["started_at"] == empty["started_at"] == pd.Timestamp("2024-07-01", tz="UTC")
    assert full["ended_at"] == pd.Timestamp("2025-07-01 10:00:00.123456", tz="UTC")  # naive: in the workspace's zone
    assert (full["mrr"], full["auto_renew"], full["subscription_id"], full["seats"], full["billing_months"]) == (
        1234.56, True, '"x"', 7.0, 12)
    assert all(pd.isna(empty[name]) for name in ("ended_at", "mrr", "auto_renew", "subscription_id", "seats"))


def test_other_schemas_views_and_empty_tables_are_read(url, server, tmp_path):
    """A name may carry its schema; a view is a table; no rows are no error."""
    server.execute(ACCOUNTS)
    server.execute("CREATE SCHEMA helpdesk; CREATE TABLE helpdesk.tickets AS SELECT 't1' AS ticket_id, 'A1' AS "
                   "account_id, timestamptz '2025-01-01 00:00+00' AS opened_at")
    server.execute("CREATE VIEW used AS SELECT 'A1' AS account_id, timestamptz '2025-02-01 00:00+00' AS occurred_at, "
                   "'open' AS event; CREATE TABLE touches (account_id text, occurred_at timestamptz)")
    tables = read(tmp_path, accounts={"source": url, "table": "accounts"}, touches={"source": url, "table": "touches"},
                  usage_events={"source": url, "table": "used"},
                  support_tickets={"source": url, "table": "helpdesk.tickets"})
    assert {"accounts": 1, "usage_events": 1, "touches": 0, "support_tickets": 1} == {
        name: len(tables[name]) for name in sorted(tables.given, key=tuple(tables).index)} | {"touches": 0}
    assert tables.has("touches")


def test_a_wrong_table_is_named_with_those_that_there_are(url, server, tmp_path):
    server.execute(ACCOUNTS)
    with pytest.raises(DataError, match=r"accounts: .* holds no table 'acounts'\. Did you mean 'accounts'\?"):
        read(tmp_path, accounts={"source": url, "table": "acounts"})


@pytest.mark.parametrize("use", ["source", "engine"])
def test_a_wrong_login_does_not_show_the_password(use, postgres, tmp_path, monkeypatch):
    """Neither the message nor what it was raised from holds it."""
    monkeypatch.setenv("PG_SECRET", "s3cr%2Fet")
    address = sa.make_url(postgres)
    url = f"postgresql://no_such_user:${{PG_SECRET}}@{address.host}:{address.port or 5432}/no_such_database"
    tables = on(book(1, tmp_path, rows=4), url)
    uses = {"source": lambda: read(tmp_path, accounts={"source": url, "table": "accounts"}),
            "engine": lambda: compute_features(tables, points(SHAPES["few"]), catalog(tables))}
    with pytest.raises((DataError, FeatureError), match=r"\$\{\.\.\.\} variables") as caught:
        uses[use]()
    assert "s3cr" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_password_in_the_file_is_refused():
    with pytest.raises(SettingsError, match="'engine' holds a password"):
        from_mapping({"engine": "postgresql://me:secret@host/db"})


def test_a_hundred_thousand_rows_are_read(url, server, tmp_path):
    """Counts and sums are those of the server."""
    server.execute(ACCOUNTS)
    server.execute("CREATE TABLE usage_events AS SELECT 'A1' AS account_id, 'e' || n % 7 AS event, n::numeric / 8 AS "
                   "quantity, timestamptz '2024-01-01 00:00+00' + n * interval '1 minute' AS occurred_at "
                   "FROM generate_series(1, 100000) AS n")
    tables = read(tmp_path, accounts={"source": url, "table": "accounts"},
                  usage_events={"source": url, "table": "usage_events"})
    found = tables.raw.sql("SELECT count(*), sum(quantity), count(DISTINCT event), max(occurred_at) FROM usage_events")
    assert (100_000, 100_000 * 100_001 / 16, 7, dt.datetime(2024, 3, 10, 10, 40, tzinfo=dt.UTC)) == found.fetchall()[0]


def test_a_workspace_in_postgres_gives_the_features_of_one_in_files(url, server, tmp_path):
    """The same rows, once from Parquet and once from the server."""
    whole = book(1, tmp_path)
    names = sorted(name for name in whole.given if name not in ("trainings", "clicks"))
    (tmp_path / "raw").mkdir()
    kinds = {"int64": "bigint", "double": "double precision", "bool": "boolean", "string": "text"}
    for name in names:
        data = frame(whole.expr(name).drop("known_at"))
        data.to_parquet(tmp_path / "raw" / f"{name}.parquet")
        arrow = whole.expr(name).drop("known_at").to_pyarrow()
        columns = ", ".join(f'"{field.name}" {kinds.get(str(field.type), "timestamptz")}' for field in arrow.schema)
        server.execute(f"CREATE TABLE {name} ({columns})")
        with server.cursor().copy(f"COPY {name} FROM STDIN") as copy:
            for row in arrow.to_pylist():
                copy.write_row(tuple(row.values()))
    common = {"covers_until": "2026-06-01", "raw": "raw", "rates": {"USD": 0.9}}
    files = read_tables(from_mapping({**common, "tables": {"invalid": "drop"}}, tmp_path), at="2026-06-01")
    there = read_tables(from_mapping({**common, "tables": {
        "invalid": "drop", **{name: {"source": url, "table": name} for name in names}}}, tmp_path), at="2026-06-01")
    asked, words = points(SHAPES["few"]), catalog(files)
    same(compute_features(there, asked, words), compute_features(files, asked, words))


@pytest.mark.parametrize(("seed", "shape"), [(1, "few"), (2, "weekly"), (3, "anywhen"),
                                             *(pytest.param(seed, shape, marks=pytest.mark.slow)
                                               for seed in range(4, 10) for shape in SHAPES)])
def test_every_feature_on_postgres_equals_the_one_on_duckdb(seed, shape, url, tmp_path):
    """All groups, ours and a workspace's own, value by value."""
    tables = book(seed, tmp_path)
    expected = features(tables, shape)
    same(features(on(tables, url), shape), expected)


def test_the_golden_workspace_on_postgres(url, golden, monkeypatch):
    """The worked example."""
    monkeypatch.setenv("CHURNKIT_GOLDEN", str(golden))
    tables = read_tables(MAPPING, at="2026-02-01")
    asked = pd.concat([points_at(tables, entity, CUTOFFS) for entity in ("account", "asset")], ignore_index=True)
    expected = compute_features(tables, asked)
    same(compute_features(on(tables, url), asked), expected)


def test_what_was_brought_to_postgres_is_dropped(url, server, tmp_path, monkeypatch):
    """The schema goes when the engine is closed, even by an error; texts never come."""
    tables = on(book(1, tmp_path), url)
    with opened(tables) as engine:
        assert "body" not in engine.tables.expr("support_tickets").columns
        assert 1 == len(_schemas(server))
    assert [] == _schemas(server)
    monkeypatch.setattr(compute, "expression", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compute_features(tables, points(SHAPES["few"]), catalog(tables))
    assert [] == _schemas(server)


def test_what_a_killed_run_left_is_dropped_by_the_next(url, server, tmp_path):
    """A run that is under way keeps its schema; one whose connection is gone does not."""
    tables, other = on(book(1, tmp_path, rows=4), url), on(book(2, tmp_path, rows=4), url)
    group = groups(catalog(tables))["survey"]
    with opened(tables) as killed, opened(other) as alive:
        server.execute("SELECT pg_terminate_backend(%s)", (killed._con.info.backend_pid,))
        assert {killed.schema, alive.schema} == set(_schemas(server))
        third = on(book(3, tmp_path, rows=4), url)
        with opened(third):
            assert len(compute_group(third, points(SHAPES["few"])[:1], group, catalog(third))) == 1
            assert killed.schema not in _schemas(server)
            assert alive.schema in _schemas(server)
        with pytest.raises(FeatureError, match="stopped answering"):
            compute_group(tables, points(SHAPES["few"])[:1], group, catalog(tables))
    assert [] == _schemas(server)


def _schemas(server) -> list[str]:
    return [name for (name,) in server.execute("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)",
                                               (PREFIX,))]
