"""Customers' words stay in the raw tables: a secret planted in every text is found nowhere else, whatever happens."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path

import pandas as pd
import pytest

from churnkit import jobs
from churnkit.cutoffs import moment
from churnkit.errors import ChurnkitError
from churnkit.jobs import setup

AT = moment("2026-11-01")
SECRET = "xq7zsecretvwk"  # noqa: S105 - a mark to look for, not a password
WORDS = f"This is the third time, {SECRET}!! I want to speak to a person or we cancel."
COLUMNS = {"support_tickets": ("subject", "body"), "ticket_messages": ("text",), "surveys": ("text",)}


def plant(raw: Path) -> None:
    """The secret at the head of every text; every message's author is the customer."""
    for name, columns in COLUMNS.items():
        file = next(raw.glob(f"{name}.*"))
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype=str)
        for column in columns:
            frame[column] = WORDS + " " + frame[column].astype(object).fillna("").astype(str)
        frame.to_parquet(raw / f"{name}.parquet", index=False)
        if file.suffix != ".parquet":
            file.unlink()


def holders(folder: Path) -> list[str]:
    """Files that hold the secret, as text or in a Parquet column, outside the raw tables."""
    files = [file for file in sorted(folder.rglob("*"))
             if file.is_file() and not file.is_relative_to(folder / "data" / "raw")]
    return [str(file.relative_to(folder)) for file in files
            if any(form in file.read_bytes() for form in _forms())
            or (file.suffix == ".parquet" and SECRET in pd.read_parquet(file).to_csv())]


def _forms() -> tuple[bytes, ...]:
    return SECRET.encode(), SECRET.upper().encode(), SECRET.encode("utf-16-le"), zlib.compress(SECRET.encode())


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """A small simulated workspace with the secret in each text."""
    folder = tmp_path_factory.mktemp("secret") / "book"
    setup.simulate(folder, accounts=60, months=8, seed=3)
    plant(folder / "data" / "raw")
    return folder


def quiet(book: Path, caplog, capfd, *jobs_to_run) -> None:
    """Runs jobs with logs at DEBUG; nothing that they say, write or log holds the secret."""
    with caplog.at_level(logging.DEBUG):
        said = repr([job(book, AT) for job in jobs_to_run])
    shown = capfd.readouterr()
    assert SECRET not in caplog.text
    assert SECRET not in shown.out + shown.err + said
    assert holders(book) == []


@pytest.mark.slow
def test_the_whole_line_writes_and_logs_no_text(book, caplog, capfd):
    """Models, scores, reasons, MLflow's files and all else of a day, and the check of the tables."""
    quiet(book, caplog, capfd, jobs.run, jobs.check)


def test_features_tasks_and_the_crm_hold_no_text(book, caplog, capfd):
    """The feature store, the outbox and the CRM's files; and the cues of those words are there as numbers."""
    quiet(book, caplog, capfd, jobs.features, jobs.plan, jobs.sync)
    assert list((book / "crm" / "tasks").glob("*.json"))
    support = pd.concat([pd.read_parquet(file) for file in (book / "features" / "data" / "support").rglob("*.parquet")])
    assert (support["cue_person_28d"] > 0).any()
    assert (support["cue_person_84d"] == support["messages_84d"]).all()


FAULTS = {"raises": "raise ValueError(texts.iloc[0])", "no numbers": "return texts"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_polarity_shows_no_text(book, fault, caplog):
    """Neither its error nor a log, nor what hangs on the error."""
    settings = (book / "churnkit.toml").read_text()
    (book / "mood.py").write_text(f"def listen(texts):\n    {FAULTS[fault]}\n")
    (book / "churnkit.toml").write_text(f'allow_code = true\n{settings}\n[text]\npolarity = "mood:listen"\n')
    try:
        with caplog.at_level(logging.DEBUG), pytest.raises(ChurnkitError, match="mood:listen") as error:
            jobs.plan(book, AT, dry_run=True)
    finally:
        (book / "churnkit.toml").write_text(settings)
    assert SECRET not in str(error.value) + repr(error.value.__context__) + repr(error.value.__cause__)
    assert SECRET not in caplog.text
    assert holders(book) == []


@pytest.mark.parametrize("invalid", ["raise", "drop"])
def test_wrong_rows_show_no_text(book, invalid, caplog):
    """A ticket of an unknown account, and one with a time that is none: the finding names the row, not its words."""
    file = book / "data" / "raw" / "support_tickets.parquet"
    good, settings = pd.read_parquet(file), (book / "churnkit.toml").read_text()
    bad = good.astype({"opened_at": str})
    bad.loc[0, "account_id"], bad.loc[1, "opened_at"] = "nobody", "soon"
    bad.to_parquet(file, index=False)
    (book / "churnkit.toml").write_text(settings + f'\n[tables]\ninvalid = "{invalid}"\n')
    said = ""
    try:
        with caplog.at_level(logging.DEBUG):
            said = repr(jobs.plan(book, AT, dry_run=True) if invalid == "raise" else jobs.check(book, AT))
    except ChurnkitError as error:
        said += str(error)
    finally:
        good.to_parquet(file, index=False)
        (book / "churnkit.toml").write_text(settings)
    assert "support_tickets" in said
    assert SECRET not in said + caplog.text
    assert holders(book) == []
