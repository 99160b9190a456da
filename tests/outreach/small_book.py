"""A small book of accounts, and scores, for this room's tests."""

import pandas as pd
from small_tasks import AT


def ago(days):
    return pd.Timestamp(AT) - pd.Timedelta(days=days)


def frames(**extra):
    """Twelve accounts, two owners and a manager; further tables by name."""
    ids = [f"A{n:02d}" for n in range(12)]
    accounts = pd.DataFrame({
        "account_id": ids, "created_at": ago(700), "name": [f"Customer {n}" for n in ids], "segment": "mid",
        "owner": ["ann", "bob"] * 6, "parent_account_id": None, "known_at": ago(700)})
    owners = pd.DataFrame({
        "owner": ["ann", "bob", "max"], "email": ["ann@us.example", "bob@us.example", "max@us.example"],
        "capacity_per_week": [3, 3, 2], "active": [True, True, True], "manager": ["max", "max", None]})
    subscriptions = pd.DataFrame({
        "account_id": ids, "subscription_id": ids, "started_at": ago(600), "mrr": 1000.0, "currency": "EUR",
        "renews_at": ago(-41), "known_at": ago(600)})
    return {"accounts": accounts, "owners": owners, "subscriptions": subscriptions, **extra}


def scores(probabilities, target="churn", value=9600.0, skill=True):
    """SCORES for accounts (or assets, with their account) by id."""
    return pd.DataFrame([
        {"entity_id": entity, "account_id": entity.split("/")[0], "cutoff": pd.Timestamp(AT), "target": target,
         "probability": p, "percentile": p, "band": "high", "value": value, "currency": "EUR", "model_version": "v3",
         "data_hash": "h", "skill": skill} for entity, p in probabilities.items()])
