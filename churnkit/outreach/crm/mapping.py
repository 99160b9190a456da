"""Who is who in the CRM: the workspace's mapping table, and the words for those that are not found."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from churnkit.errors import SettingsError

COLUMNS = ("kind", "id", "crm_id")
FILE = "crm_map.csv"
Kind = Literal["account", "owner", "contact"]
_KINDS = ("account", "owner", "contact")


@dataclass(frozen=True)
class Mapped:
    """kind and our id = the CRM's id, from a table of three columns; it goes before whatever a connector looks up.

    Accounts and contacts go by their id in the raw tables, owners by their e-mail address, upper and lower case alike.
    """

    known: Mapping[tuple[str, str], str] = field(default_factory=dict)
    path: str = FILE

    @classmethod
    def load(cls, path: Path, *, wanted: bool = False) -> Mapped:
        """From a CSV file; a file that is not there is an empty table, unless it is `wanted`.

        Raises:
            SettingsError: If the file cannot be read, or a row is wrong: names the row.
        """
        if not path.is_file() and not wanted:
            return cls(path=str(path))
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                table = csv.DictReader(file)
                if not set(COLUMNS) <= set(table.fieldnames or ()):
                    raise SettingsError(f"{path}: its first line must be: {','.join(COLUMNS)}")
                rows = [(number, row) for number, row in enumerate(table, start=2)]
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read ({error.strerror}). Make it, or take [crm_options] mapping "
                                "out.") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise SettingsError(f"{path}: is no CSV in UTF-8 ({error}). Save it as that.") from None
        known: dict[tuple[str, str], str] = {}
        for number, row in rows:
            kind, ours, theirs = ((row.get(name) or "").strip() for name in COLUMNS)
            if kind not in _KINDS:
                raise SettingsError(f"{path}, row {number}: kind '{kind}' is none of {', '.join(_KINDS)}. Mend the "
                                    "row.")
            if not ours or not theirs:
                raise SettingsError(f"{path}, row {number}: needs an id and a crm_id. Fill them in, or take it out.")
            name = (kind, ours.lower() if kind == "owner" else ours)
            if known.get(name, theirs) != theirs:
                raise SettingsError(f"{path}, row {number}: {kind} '{ours}' stands there twice, as '{known[name]}' and "
                                    f"'{theirs}'. Keep one.")
            known[name] = theirs
        return cls(known, str(path))

    def get(self, kind: Kind, ours: str) -> str | None:
        """The CRM's id, or None."""
        return self.known.get((kind, ours.lower() if kind == "owner" else ours))

    def owner_of(self, theirs: str) -> str | None:
        """The e-mail address that stands for an owner's id of the CRM, or None."""
        return next((ours for (kind, ours), crm_id in self.known.items() if kind == "owner" and crm_id == theirs), None)

    def unmapped(self, kind: Kind, ours: str, why: str) -> str:
        """Why a task cannot be sent, and the mend: the reason of its dead letter.

        >>> Mapped().unmapped("owner", "ann@us.example", "is no active user of this portal")
        "owner 'ann@us.example' is no active user of this portal. Mend it there, or add the row \
owner,ann@us.example,<id in the CRM> to crm_map.csv; then: churnkit sync dead retry."
        """
        return (f"{kind} '{ours}' {why}. Mend it there, or add the row {kind},{ours},<id in the CRM> to {self.path}; "
                "then: churnkit sync dead retry.")


def mapped(options: Mapping[str, str], root: Path) -> Mapped:
    """The workspace's table: `[crm_options] mapping`, by default crm_map.csv where there is one."""
    return Mapped.load(root / options.get("mapping", FILE), wanted="mapping" in options)
