"""The model card of a version, in Markdown: what it learnt from, how good it is and for whom, and who approved it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from churnkit.learning.explain import about_features
from churnkit.learning.families import Families
from churnkit.learning.promotion import Decision
from churnkit.learning.succession import RULE, Change
from churnkit.learning.training import Trained
from churnkit.signals.catalog import Catalog
from churnkit.signals.features import groups
from churnkit.signals.words import in_window

FILE = "card.md"
APPROVAL, FIRST = "## Approval", "## Target"
DRIVERS, SAMPLE, BINS = 10, 3000, 10
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!])")


@dataclass(frozen=True)
class About:
    """What a card tells beyond the training run itself.

    `covers` says per table how far its rows reach, `protected` which features were kept from the model, `suspects`
    which may know the outcome; `catalog` holds the workspace's words.
    """

    at: dt.datetime
    covers: Mapping[str, dt.datetime] = field(default_factory=dict)
    protected: Sequence[str] = ()
    suspects: Sequence[str] = ()
    catalog: Catalog | None = None


def plain(value: Any) -> str:
    r"""Data as text that Markdown takes for nothing else, in one line.

    >>> plain("<b>|x|\n# y")
    '\\<b\\>\\|x\\| \\# y'
    """
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def body(trained: Trained, about: About, data_hash: str, model_hash: str) -> str:
    """The card without its approval, which changes later."""
    parts = {"Target": _target(trained), "Data": _data(trained, about, data_hash), "Form": _form(trained, model_hash),
             "Figures": _figures(trained), "Calibration": _calibration(trained),
             "Beside the model": [*([trained.curve.evaluation.says()] if trained.curve else []),
                                  *(one.says() for one in trained.beside)],
             "Drivers": _drivers(trained, about.catalog), "Segments": _segments(trained, fairness=False),
             "Fairness": _segments(trained, fairness=True), "Limits": _limits(trained, about)}
    texts = [f"# The {trained.model.target.name} model"]
    texts += [f"## {name}\n\n" + "\n".join(lines) for name, lines in parts.items() if lines]
    return "\n\n".join(texts) + "\n"


def approved(card: str, version: str, decision: Decision | None, history: Sequence[Change]) -> str:
    """The card with who approved the version, and what came of it since."""
    number = version.split(maxsplit=1)[0].rpartition("-")[2]
    lines = [f"- When it was trained: {plain(decision.says(version))}"] if decision else []
    for one in history:
        by = "the rule" if one.how == RULE else plain(one.by)
        if one.new == number:
            lines.append(f"- {one.when}: champion by {by} ({plain(one.how)}): {plain(one.why)}")
        elif one.old == number:
            lines.append(f"- {one.when}: followed by version {plain(one.new)}, by {by} ({plain(one.how)}): "
                         f"{plain(one.why)}")
    lines = lines or ["- Nobody has decided on it yet."]
    title, _, rest = card.partition("\n")
    told = rest.partition(f"\n{FIRST}\n")[2]
    return "\n".join([title, "", APPROVAL, "", f"Version {plain(version)}.", "", *lines, "", FIRST, told])


def _target(trained: Trained) -> list[str]:
    one = trained.model.target
    code = f" Only failures of the code {plain(one.code)} count." if one.code else ""
    return [(f"The probability that an {one.entity} {plain(one.says or one.name)}. A label at a cutoff looks at "
            f"{one.horizon.days} days that begin {one.lead.days} days after it, and is known {one.grace.days} days "
            f"after their end.{code}")]


def _data(trained: Trained, about: About, data_hash: str) -> list[str]:
    rows, cut = trained.data, trained.splits
    keys, dropped = rows.keys["cutoff"], rows.dropped
    lines = [
        (f"- Data up to {about.at:%Y-%m-%d}; {len(rows)} labelled rows of {rows.keys['entity_id'].nunique()} "
        f"{rows.target.entity}s at {len(rows.cutoffs)} cutoffs from {keys.min():%Y-%m-%d} to {keys.max():%Y-%m-%d}, "
        f"{rows.positives} positive ({rows.positives / len(rows):.1%})."),
        (f"- Test period from {cut.test_at:%Y-%m-%d} on: {trained.evaluation.rows} rows, "
        f"{trained.evaluation.positives} positive. The figures below are of a fit on rows whose labels had closed "
        "before it; the model that scores was then fitted on all rows."),
        "- Without a label: " + (", ".join(f"{count} {plain(why)}" for why, count in dropped.items()) or "none") + ".",
        (f"- {len(trained.model.features)} inputs. Protected, so neither inputs nor reasons: "
        f"{', '.join(map(plain, about.protected)) or 'none'}. Under suspicion of knowing the outcome: "
        f"{', '.join(map(plain, about.suspects)) or 'none'}."),
        f"- Hash of the rows: `{data_hash}`.",
    ]
    covers = [[plain(name), f"{when:%Y-%m-%d}"] for name, when in sorted(about.covers.items())]
    return [*lines, *(["", *_table(["table", "reaches to"], covers)] if covers else [])]


def _form(trained: Trained, model_hash: str) -> list[str]:
    one = trained.model
    form = {0.0: "a logistic regression", 1.0: "boosted trees"}.get(one.blend.share, "a blend of boosted trees and a "
                                                                                    "logistic regression")
    own = ", ".join(f"{plain(name)} {value:g}" for name, value in sorted(one.params.items()))
    return [(f"- {form[0].upper()}{form[1:]}, {one.rounds} rounds of trees, calibration: {one.calibration.kind}, seed "
            f"{one.seed}."),
            f"- Parameters: {f'found by {len(trained.trials)} trials ({own})' if own else 'the default'}.",
            f"- Hash of the model: `{model_hash}`."]


def _figures(trained: Trained) -> list[str]:
    found = trained.evaluation
    rows = [[str(metric).replace("_", " "), _number(row["model"]), (f"{_number(row['model_low'])} to "
             f"{_number(row['model_high'])}"), _number(row["baseline"]), _number(row["base_rate"])]
            for metric, row in found.table.rename(index=str).to_dict("index").items()]
    return [plain(found.says()), "", "Intervals hold 95% of the resamples of entities.", "",
            *_table(["metric", "model", "interval", "logistic baseline", "base rate"], rows)]


def _calibration(trained: Trained) -> list[str]:
    scored = trained.evaluation.scored
    place = np.argsort(scored["model"].to_numpy(dtype=float), kind="stable")
    rows = []
    for part in np.array_split(place, min(BINS, max(len(place), 1))):
        y, p = (scored[name].to_numpy(dtype=float)[part] for name in ("y", "model"))
        if len(part):
            rows.append([str(len(part)), f"{p.min():.1%} to {p.max():.1%}", f"{p.mean():.1%}", f"{y.mean():.1%}"])
    return ["The test rows in groups of equal size, by score. The plot: `evaluation.png`.", "",
            "![calibration on the test period](evaluation.png)", "",
            *_table(["rows", "probability", "predicted", "observed"], rows)]


def _drivers(trained: Trained, catalog: Catalog | None) -> list[str]:
    """The families of inputs that move the scores most, on the newest rows."""
    model, rows = trained.model, trained.data.X.tail(SAMPLE)
    contributions, _ = model.contributions(rows)
    known = {one.name: one for group in groups(catalog or Catalog()).values() for one in group.features}
    families = Families([one.family for one in about_features(model.features, catalog)])
    weight = np.abs(families.added(contributions)).mean(axis=0)
    single = np.abs(contributions).mean(axis=0)
    lines = []
    for place in np.argsort(-weight, kind="stable")[:DRIVERS]:
        members = np.flatnonzero(families.of == place)
        first = model.features[members[single[members].argmax()]]
        one = known.get(first)
        words = in_window(one.says, one).replace("{value}", "N") if one else first.replace("_", " ")
        if weight[place] > 0:
            lines.append([plain(words), ", ".join(f"`{model.features[member]}`" for member in members[:6]),
                          f"{weight[place] / weight.sum():.1%}"])
    return [(f"What moves the scores of the newest {len(rows)} rows (mean of the absolute SHAP values, related columns "
            "added up)."), "", *_table(["driver", "columns", "share"], lines)] if lines else []


def _segments(trained: Trained, *, fairness: bool) -> list[str]:
    found = trained.evaluation.segments
    some = found[found["fairness"].astype(bool) == fairness] if len(found) else found
    if some.empty:
        return ["No attribute was named: fairness = [...] in [training] of churnkit.toml."] if fairness else []
    names = ["attribute", "segment", "rows", "positive", "predicted", "observed", "AUC", "flagged", "caught", "verdict"]
    rows = [[plain(one["by"]), plain(one["segment"]), str(one["rows"]), str(one["positives"]),
             f"{one['predicted']:.1%}",
             f"{one['observed']:.1%} ({one['observed_low']:.1%} to {one['observed_high']:.1%})",
             f"{_number(one['auc'])} ({_number(one['auc_low'])} to {_number(one['auc_high'])})",
             f"{one['flagged']:.1%}", _number(one["caught"]), plain(one["why"])] for one in some.to_dict("records")]
    return [*([] if fairness else [plain(trained.evaluation.weak()), ""]), *_table(names, rows)]


def _limits(trained: Trained, about: About) -> list[str]:
    notes = [*trained.model.notes, *(trained.curve.curve.notes if trained.curve else ())]
    if not trained.evaluation.skill:
        notes.insert(0, "its skill is not proven: it opens no task")
    if about.suspects:
        notes.append("it learnt from features that may know the outcome, and is held back")
    return [f"- {plain(note)}" for note in dict.fromkeys(notes)] or ["- None was noted."]


def _table(names: Iterable[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = list(names)
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _number(value: Any) -> str:
    return "none" if pd.isna(value) else f"{value:.4f}"
