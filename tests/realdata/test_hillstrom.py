"""Uplift on Hillstrom's e-mail test: women's mail is ranked well, and of men's mail no more is claimed than is so."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from churnkit.learning.qini import Arms, effect, qini, resampled, top_effect
from churnkit.learning.uplift import Trial, UpliftModel, rank_by

pytestmark = pytest.mark.realdata  # prints its figures: they stand in the README
SPLITS = 5


def mail(real_data, name):
    """Who got this mail and who got none: inputs, whether mailed, whether they visited the shop."""
    rows = pd.read_csv(real_data / "hillstrom" / "hillstrom.csv.gz")
    rows = rows[rows["segment"].isin([name, "No E-Mail"])].reset_index(drop=True)
    inputs = rows.drop(columns=["segment", "visit", "conversion", "spend"])
    return inputs, (rows["segment"] == name).to_numpy(), rows["visit"].to_numpy(dtype=float)


def fitted(x, treated, y):
    """A model of the visit; which mail a customer got was drawn with equal chances."""
    rows = Trial(x.reset_index(drop=True), treated, y, np.full(len(y), 0.5), np.arange(len(y)))
    return UpliftModel.fit("visit", rows)


def halves(x, treated, y):
    """Five models, each learnt, chosen and judged on one half, and its Qini on the other."""
    found = []
    for seed in range(SPLITS):
        fit, test = train_test_split(np.arange(len(y)), test_size=0.5, random_state=seed, stratify=2 * treated + y)
        model = fitted(x.iloc[fit], treated[fit], y[fit])
        arms, uplift = Arms.of(y[test], treated[test]), model.predict(x.iloc[test])
        spread = resampled(arms, [uplift], np.arange(len(test)), 1000, seed).qinis
        low, high = np.quantile(spread, [0.025, 0.975])
        found.append({"qini": qini(arms, uplift), "low": low, "high": high, "effect": effect(arms),
                      "top": top_effect(arms, uplift), "skill": model.skill, "learner": model.learner})
        sys.stdout.write(f"\nsplit {seed}: test half: qini_auc {found[-1]['qini']:+.4f} ({low:+.4f} to {high:+.4f}), "
                         f"average {found[-1]['effect']:+.4f}, uplift at 30% {found[-1]['top']:+.4f}; training half: "
                         f"{model.verdict.says()}\n")
        sys.stdout.flush()
    table = pd.DataFrame(found)
    means = table[["qini", "effect", "top"]].mean()
    sys.stdout.write(f"mean of {SPLITS}: qini_auc {means['qini']:+.4f} (+- {table['qini'].std():.4f}), average "
                     f"{means['effect']:+.4f}, uplift at 30% {means['top']:+.4f}\n")
    return table


def test_womens_mail_is_ranked_by_uplift(real_data):
    """Learners and settings are chosen on the training halves; the other halves are looked at once."""
    found = halves(*mail(real_data, "Womens E-Mail"))
    assert found["skill"].all()
    assert found["qini"].mean() >= 0.055
    assert found["top"].mean() > 1.2 * found["effect"].mean()


def test_mens_mail_has_no_usable_heterogeneity(real_data):
    """It helps everybody about alike: the same code claims nothing, although the mail works better than women's."""
    x, treated, y = mail(real_data, "Mens E-Mail")
    found = halves(x, treated, y)
    assert found["effect"].mean() > 0.07
    whole = fitted(x, treated, y)
    sys.stdout.write(f"all rows: {whole.verdict.says()}\n")
    assert not found["skill"].any()
    assert "no usable heterogeneity" in whole.verdict.why
    assert rank_by(whole) == "probability"
