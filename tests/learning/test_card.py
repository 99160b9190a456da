"""The model card: written from the run, escaped, kept with the version, and its approval follows what people decide."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace

import numpy as np
import pytest

from churnkit.learning.card import About, approved, body, plain
from churnkit.learning.succession import Change
from churnkit.learning.training import train

AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
WHO = {"by": "Ada | Lim", "why": "knows the <b>new</b> plans", "now": AT}


@pytest.fixture(scope="module")
def run(rows, trained):
    """A run whose test rows have segments, one of them asked for as fairness; their names are hostile."""
    words = np.array(["mid\n## Approval\n", "large | <script>"], dtype=object)
    groups = rows.X[["plan"]].rename(columns={"plan": "segment"}).assign(
        region=words[rows.keys["entity_id"].astype(int).to_numpy() % 2])
    return train(rows.target, replace(rows, groups=groups, fairness=("region",)))


def section(card, name):
    """One section's text."""
    return re.split(r"^## ", card.partition(f"\n## {name}\n")[2], flags=re.MULTILINE)[0]


def test_the_figures_of_the_card_are_those_of_the_run(run, rows):
    card = body(run, About(AT, {"accounts": AT}, ["gender"], ["mrr"]), "0123", "4567")
    table, scored = run.evaluation.table, run.evaluation.scored
    auc = table.loc["auc"]
    assert (f"| auc | {auc['model']:.4f} | {auc['model_low']:.4f} to {auc['model_high']:.4f} | {auc['baseline']:.4f} "
            f"| {auc['base_rate']:.4f} |") in section(card, "Figures")
    assert f"{len(rows)} labelled rows of 300 accounts at 20 cutoffs" in section(card, "Data")
    assert "| accounts | 2026-01-01 |" in section(card, "Data")
    assert "gender" in section(card, "Data")
    assert "`0123`" in section(card, "Data")
    assert "`4567`" in section(card, "Form")
    groups = [line.split("|") for line in section(card, "Calibration").splitlines() if re.match(r"\| \d", line)]
    assert len(scored) == sum(int(one[1]) for one in groups)
    lowest = scored.nsmallest(len(scored) // 10, "model", keep="first")
    assert f"{lowest['model'].mean():.1%}" == groups[0][3].strip()
    assert "held back" in section(card, "Limits")


def test_what_matters_leads_the_drivers(run):
    """The made-up book's cause: open tickets and use."""
    found = [line for line in section(body(run, About(AT), "", ""), "Drivers").splitlines() if "`" in line]
    assert any("`tickets_open`" in line for line in found[:2])
    assert any("`events_28d`" in line for line in found[:2])
    shares = [float(line.split("|")[3].strip(" %")) for line in found]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.5)


def test_segments_and_fairness_stand_apart_and_hostile_words_make_nothing(run):
    card = body(run, About(AT), "", "")
    assert "solo" in section(card, "Segments")
    assert "| region |" not in section(card, "Segments")
    assert "large \\| \\<script\\>" in section(card, "Fairness")
    assert "<script>" not in card
    assert "\n## Approval" not in card
    columns = {line.count(" | ") for line in section(card, "Fairness").replace("\\|", "").splitlines()
               if line.startswith("| ")}
    assert len(columns) == 1


def test_text_of_data_is_one_plain_line():
    assert plain("a\n# b *c* [d](e) `f`") == r"a \# b \*c\* \[d\](e) \`f\`"


def test_the_approval_is_replaced_not_added_to(run):
    first = approved(body(run, About(AT), "", ""), "churn-2", None, [])
    again = approved(first, "churn-2", None, [Change("2026-01-01", "promote", "Ada", "why not", "1", "2")])
    assert 1 == again.count("## Approval")
    assert "Nobody has decided" in section(first, "Approval")
    assert "champion by Ada (promote): why not" in section(again, "Approval")
    assert first.partition("## Target")[2] == again.partition("## Target")[2]


def test_the_card_is_kept_with_the_version_and_follows_decisions(registry, run, weak):
    """As a file beside the run, as the version's description; the artefact stays verified."""
    registry.register(weak, at=AT)
    registry.register(run, at=AT, about=About(AT, {"accounts": AT}))
    registry.rollback("churn", **WHO)
    client = registry.tracking.client
    version = client.get_model_version("churn", "2")
    card = registry.card("churn-2")
    file = registry.tracking.artifacts / version.run_id / "artifacts" / "card.md"
    assert card == file.read_text(encoding="utf-8")
    assert card[:5000] == version.description
    told = section(card, "Approval")
    assert "churn-2 is the champion" in told
    assert "champion by the rule" in told
    assert r"followed by version 1, by Ada \| Lim (rollback): knows the \<b\>new\</b\> plans" in told
    assert "champion by Ada" in section(registry.card("churn-1"), "Approval")
    assert registry.champion("churn").version == "churn-1"
