"""`init --from`: a proposed mapping says what each file seems to be, and reads as churnkit.toml."""

from __future__ import annotations

import tomllib

import pandas as pd
import pytest

from churnkit.errors import DataError
from churnkit.settings import from_mapping
from churnkit.signals.propose import propose
from churnkit.signals.tables import read_tables

FILES = {
    "crm_customers.csv": "CustomerID,Company,SignupDate,Region\nC1,Ann,2024-01-01,N\nC2,Bob,2024-02-01,S\n",
    "contracts.csv": "subscription_id,customer_id,start_date,end_date,plan_tier,mrr_amount\nS1,C1,2024-01-01,,Pro,10\n",
    "feature_usage.csv": "subscription_id,usage_date,feature_name,usage_count\nS1,2024-03-01,search,3\n",
    "tickets.csv": "case_id,customer_id,created_at,resolution_time_hours,severity\nT1,C1,2024-03-01 08:00,5,high\n",
    "PdM_failures.csv": "datetime,machineID,failure\n2024-03-01 06:00:00,1,comp1\n",
    "PdM_errors.csv": "datetime,machineID,errorID\n2024-03-01 05:00:00,1,e1\n",
    "sensors.csv": "machineID,date,volt,heat\n1,2024-03-01,1.5,2\n1,2024-03-02,1.6,3\n",
    "nps.csv": "customer_id,date,kind,rating\nC1,31/01/2024,NPS,9\n",
    "holiday_calendar.csv": "k,v\na,b\n",
}


def proposal(root, *names):
    """The proposal for some of the files, as text and as TOML."""
    for name in names:
        (root / name).write_text(FILES[name])
    text = propose(root)
    return text, tomllib.loads(text)


def test_names_and_synonyms_find_tables_and_columns(tmp_path):
    """Customers are accounts, and SignupDate is created_at."""
    _, found = proposal(tmp_path, "crm_customers.csv", "contracts.csv")
    assert found[
        "tables"
    ]["accounts"]["columns"] == {"account_id": "CustomerID", "name": "Company", "created_at": "SignupDate",
        "country": "Region"}
    assert found["tables"]["subscriptions"]["columns"] == {
        "account_id": "customer_id",
        "started_at": "start_date",
        "ended_at": "end_date",
        "plan": "plan_tier",
        "mrr": "mrr_amount",
    }


def test_a_proposal_can_be_read_as_it_stands(tmp_path):
    """Usage keyed by subscription gets a join, hours until resolved an offset."""
    text, found = proposal(tmp_path, "crm_customers.csv", "contracts.csv", "feature_usage.csv", "tickets.csv")
    assert found["tables"]["usage_events"]["grain"] == "day"
    assert found["tables"]["support_tickets"]["offsets"] == {"resolved_at": "opened_at + resolution_time_hours h"}
    tables = read_tables(from_mapping(found, root=tmp_path))
    assert tables["usage_events"]["account_id"].tolist() == ["C1"]
    assert pd.Timestamp("2024-03-01 13:00", tz="UTC") == tables["support_tickets"]["resolved_at"][0]
    assert "# ? not used" in text


def test_several_files_become_parts_of_one_table(tmp_path):
    """Each with the kind that its name gives away."""
    _, found = proposal(tmp_path, "PdM_failures.csv", "PdM_errors.csv")
    parts = found["tables"]["asset_events"]["parts"]
    assert [part["constants"]["kind"] for part in parts] == ["error", "failure"]
    assert parts[0]["columns"] == {"asset_id": "machineID", "occurred_at": "datetime", "code": "errorID"}


def test_a_wide_export_is_to_be_unpivoted(tmp_path):
    """Numeric columns beside a machine and a date are sensors."""
    _, found = proposal(tmp_path, "sensors.csv")
    assert found["tables"]["telemetry"]["unpivot"] == ["volt", "heat"]


def test_formats_and_foreign_words_are_said(tmp_path):
    """Dates that are not ISO, and values that the contract does not know."""
    text, found = proposal(tmp_path, "nps.csv")
    assert found["tables"]["surveys"]["formats"] == ["%d/%m/%Y"]
    assert "# ? values of kind seen: NPS" in text or "kind" in found["tables"]["surveys"].get("columns", {})


def test_what_is_not_understood_is_left_to_a_person(tmp_path):
    """Unknown files, broken files and missing tables stand in comments."""
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    text, found = proposal(tmp_path, "holiday_calendar.csv")
    assert found["tables"] == {"invalid": "raise"}
    assert "# ? holiday_calendar.csv: not understood; columns k, v" in text
    assert "# ? broken.parquet" in text
    assert "# ? no file looks like 'accounts', which is required" in text


def test_hostile_names_stay_inside_their_strings(tmp_path):
    """Quotes and line breaks in a header cannot write TOML of their own."""
    (tmp_path / "customers.csv").write_text('customer_id,created_at,"na""me\\"\nC1,2024-01-01,x\n')
    (tmp_path / 'x"]\n[tables.owners.csv').write_text("a\nb\n")
    assert {"accounts", "invalid"} == set(tomllib.loads(propose(tmp_path))["tables"])


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_nothing_to_propose_from(folder, tmp_path):
    """An empty or missing folder is said."""
    with pytest.raises(DataError, match=r"init --from|Export your tables"):
        propose(tmp_path / folder)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("ravenstack", {"accounts", "subscriptions", "usage_events", "support_tickets"}),
        ("fightchurn_crm6", {"accounts", "subscriptions", "usage_events"}),
        ("azure_pdm", {"assets", "telemetry", "asset_events"}),
    ],
)
def test_real_exports_are_recognised(name, tables, real_data):
    """Third-party folders, as they came."""
    assert {*tables, "invalid"} == set(tomllib.loads(propose(real_data / name))["tables"])
