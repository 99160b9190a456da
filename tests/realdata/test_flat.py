"""ChurnClassifier on other people's flat tables, by the protocols under which their references were measured."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold, train_test_split

from churnkit.learning.sklearn import ChurnClassifier

pytestmark = pytest.mark.realdata  # prints its figures: they stand in the README


def figures(name, y, p):
    """AUC, average precision and log loss; printed too."""
    found = roc_auc_score(y, p), average_precision_score(y, p), log_loss(y, p)
    sys.stdout.write(f"\n{name}: AUC {found[0]:.4f}, average precision {found[1]:.4f}, log loss {found[2]:.4f}, "
                     f"mean {p.mean():.3f} against {y.mean():.3f}")
    return found


def test_telco_in_five_folds(real_data):
    """As exported, with its blank text among the charges: no worse than the reference's 0.848 +- 0.013."""
    x = pd.read_csv(real_data / "telco_ibm" / "WA_Fn-UseC_-Telco-Customer-Churn.csv").drop(columns="customerID")
    y = x.pop("Churn")
    found = []
    for fitted, held in StratifiedKFold(5, shuffle=True, random_state=0).split(x, y):
        p = ChurnClassifier().fit(x.iloc[fitted], y.iloc[fitted]).predict_proba(x.iloc[held])[:, 1]
        found.append(figures("telco_ibm, one fold", (y.iloc[held] == "Yes").to_numpy(), p))
    mean, deviation = np.mean(found, axis=0), np.std(found, axis=0)
    sys.stdout.write(f"\ntelco_ibm, 5 folds: {mean.round(4).tolist()} +- {deviation.round(4).tolist()}\n")
    assert mean[0] >= 0.848
    assert mean[1] >= 0.66


@pytest.fixture(scope="module")
def bank(real_data):
    """The calls in date order, without `duration`, which is known only after the call."""
    x = pd.read_csv(real_data / "bank_marketing" / "bank-additional-full.csv.gz", sep=";").drop(columns="duration")
    return x, (x.pop("y") == "yes").to_numpy()


def test_bank_shuffled(bank):
    x, y = bank
    fitted, held = train_test_split(np.arange(len(x)), test_size=0.2, random_state=0, stratify=y)
    p = ChurnClassifier().fit(x.iloc[fitted], y[fitted]).predict_proba(x.iloc[held])[:, 1]
    assert figures("bank_marketing, shuffled", y[held], p)[0] >= 0.80


def test_bank_in_time_order(bank):
    """Where buyers go from 6% to 31%, knowing the time mends the ranking and part of the level."""
    x, y = bank
    cut = int(len(x) * 0.8)
    given = ChurnClassifier().fit(x[:cut], y[:cut], time=np.arange(cut)).predict_proba(x[cut:])[:, 1]
    left_out = ChurnClassifier().fit(x[:cut], y[:cut]).predict_proba(x[cut:])[:, 1]
    with_time = figures("bank_marketing, last 20%, time given", y[cut:], given)
    without = figures("bank_marketing, last 20%, no time given", y[cut:], left_out)
    assert with_time[0] >= max(without[0], 0.73)
    assert with_time[2] < without[2]
