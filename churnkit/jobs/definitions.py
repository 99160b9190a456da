"""Every feature in words: what `churnkit features list` prints, and what docs/features.md is made of."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from churnkit.jobs.report import Report
from churnkit.learning.targets import TARGETS, Target, configured
from churnkit.settings import Settings, load
from churnkit.signals.catalog import Catalog, kept
from churnkit.signals.features import groups
from churnkit.signals.groups import Feature, FeatureGroup
from churnkit.signals.own import definitions
from churnkit.signals.own_words import label
from churnkit.signals.readable import DAY_OF, OURS, Readable
from churnkit.signals.streams import stream
from churnkit.signals.words import in_window

Row = dict[str, str]
EXAMPLE = Catalog(events=("login",), sensors=("vibration",), error_codes=("e1",), components=("pump",))
"""The words of the docs: one of each kind stands for a workspace's own."""
_HEAD = """# Every feature

Made by `make docs` from the definitions; edit those, not this file. `churnkit features list` prints the same for a
workspace, with its own words and [its own features](own_features.md). Here one word of each kind stands for all: the
event `login`, the sensor `vibration`, the error code `e1` and the component `pump`.

A feature at a cutoff sees rows of its window that were known by then. In words, N stands for a number and X for a word.
"""


def listed(folder: Path) -> Report:
    """Every definition of a workspace: its own words where features were computed before, its own features always."""
    settings = load(folder)
    catalog = kept(settings.path(settings.store), settings) or Catalog(own=definitions(settings).text)
    rows = rows_of(catalog, settings)
    texts = [text for group in groups(catalog).values() for text in _group(group, rows)]
    return Report("features", texts=texts, data={"features": rows})


def rows_of(catalog: Catalog, settings: Settings) -> list[Row]:
    """One row per feature: name, phrase, window, unit, source, group, entity and the targets whose models see it.

    >>> rows_of(Catalog(), Settings())[0]["feature"]
    'events_7d'
    """
    targets = [configured(target, settings) for target in TARGETS.values()]
    return [_row(item, group, catalog, targets) for group in groups(catalog).values() for item in group.features]


def markdown() -> str:
    """docs/features.md, for the words of EXAMPLE."""
    rows = rows_of(EXAMPLE, Settings())
    parts = [_HEAD, *(text for group in groups(EXAMPLE).values() for text in _group(group, rows)), _TABLES]
    return "\n".join([*parts, *(_readable(table) for table in OURS.values())]) + "\n"


_TABLES = """## The tables that features of your own can read

What [own features](own_features.md) may take of churnkit's own tables; free text is not among it. *since* names the
time from which a value is known: a feature that takes it goes by that time. `day` is the day of the row's own time.

| table | of each | own time | other times | ends at | columns |
|---|---|---|---|---|---|"""


def _readable(table: Readable) -> str:
    since = table.known_from
    columns = [f"`{name}` ({kind}{f', since {since[name]}' if name in since else ''})" for name, kind in
               table.kinds.items() if name != DAY_OF]
    times = ", ".join(f"`{name}`" for name in table.times if name not in {table.time, table.until})
    ends = [f"`{name}`" if name else "" for name in (table.time, table.until)]
    return f"| `{table.name}` | {table.entity} | {ends[0]} | {times} | {ends[1]} | {', '.join(columns)} |"


def _row(item: Feature, group: FeatureGroup, catalog: Catalog, targets: Iterable[Target]) -> Row:
    seen = [target.name for target in targets if group.name in target.groups and item.name not in target.never]
    return {
        "feature": item.name, "phrase": _phrase(item), "window": _window(item), "unit": item.unit,
        "source": ", ".join(_sources(item, group.all_by_name, catalog)), "group": group.name, "entity": group.entity,
        "targets": ", ".join(seen),
    }


_SHOWN = {"share": "N%", "change": "up or down N%", "days": "N days", "hours": "N hours", "minutes": "N minutes",
          "money": "EUR N", "word": "X"}


def _phrase(item: Feature) -> str:
    """What people read, with N for a number and X for a word."""
    many = item.noun.rpartition("|")[2]
    value = f"N {'times' if many == 'time' else many}" if many else _SHOWN.get(item.unit, "N")
    value += " more or less" if item.op == "difference" else ""
    return in_window(item.says, item).replace("{value}", value)


def _window(item: Feature) -> str:
    """'28d', '28d, 28d earlier', 'now', '84d ago', or nothing where all that went before counts."""
    if item.state:
        return f"{label(item.before)} ago" if item.before else "now"
    if item.window_days is None:
        return ""
    return label(item.window_days) + (f", {label(item.before)} earlier" if item.before else "")


def _sources(item: Feature, known: Mapping[str, Feature], catalog: Catalog) -> list[str]:
    """The raw tables that a feature is made from, through its parts."""
    found = [stream(item.stream, catalog).needs] if item.stream else []
    return list(dict.fromkeys([*found, *(name for part in item.parts for name in _sources(known[part], known,
                                                                                         catalog))]))


def _group(group: FeatureGroup, rows: Iterable[Row]) -> list[str]:
    """A group as a Markdown section; none where it has no feature."""
    mine = [row for row in rows if row["group"] == group.name]
    if not mine:
        return []
    lines = [f"## {group.name}", "", f"Of each {group.entity}: {group.says}.", "",
             "| feature | in words | window | unit | source | used by |", "|---|---|---|---|---|---|"]
    for row in mine:
        cells = (f"`{row['feature']}`", row["phrase"], row["window"], row["unit"], row["source"], row["targets"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return ["\n".join(lines) + "\n"]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
