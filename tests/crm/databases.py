"""The suite on both databases: every day on SQLite, and by `make test-crm` on PostgreSQL too."""

import pytest

EVERY = pytest.mark.crm
"""For what `make test-crm` adds."""


class BothDatabases:
    """Stands before Conformance among a test's bases."""

    @pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=EVERY)])
    def url(self, request, tmp_path):
        """The outbox's database."""
        return request.getfixturevalue("postgres") if request.param == "postgresql" else \
            f"sqlite:///{tmp_path / 'outbox.db'}"
