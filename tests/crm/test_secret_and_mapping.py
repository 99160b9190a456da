"""Where secrets come from, who is who in the CRM, and what text becomes for its target."""

import os

import pytest

from churnkit.errors import SettingsError
from churnkit.outreach.crm.base import connect
from churnkit.outreach.crm.mapping import Mapped, mapped
from churnkit.outreach.crm.secret import Secret, secret
from churnkit.outreach.crm.words import markup, plain

NAME, WHAT = "CHURNKIT_TEST_TOKEN", "the token"


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delenv(NAME, raising=False)
    monkeypatch.delenv(f"{NAME}_FILE", raising=False)


def test_from_the_environment_or_a_file(monkeypatch, tmp_path):
    """The variable, or a file that only its owner may read; line ends around it do not count."""
    monkeypatch.setenv(NAME, " abc\n")
    assert secret(NAME, WHAT).reveal() == "abc"
    path = tmp_path / "token"
    path.write_text("from-file\n")
    path.chmod(0o600)
    monkeypatch.delenv(NAME)
    monkeypatch.setenv(f"{NAME}_FILE", str(path))
    assert secret(NAME, WHAT).reveal() == "from-file"


@pytest.mark.skipif(os.name != "posix", reason="files have no mode here")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_file_that_others_may_read_is_refused(monkeypatch, tmp_path, mode):
    """With the mode and the mend, and without what is in it."""
    path = tmp_path / "token"
    path.write_text("abc-xyz")
    path.chmod(mode)
    monkeypatch.setenv(f"{NAME}_FILE", str(path))
    with pytest.raises(SettingsError, match=rf"mode {mode:o}\)\. Run: chmod 600") as caught:
        secret(NAME, WHAT)
    assert "abc-xyz" not in str(caught.value)


@pytest.mark.parametrize(("value", "file", "said"), [
    (None, None, "Set CHURNKIT_TEST_TOKEN, or CHURNKIT_TEST_TOKEN_FILE"), ("", None, "is missing"),
    ("a", "b", "are both set"), (None, "/nowhere/at/all", "cannot be read"), ("a\nb", None, "Copy it once more"),
    ("tök", None, "Copy it once more")])
def test_what_is_no_secret(monkeypatch, value, file, said):
    """Nothing, two of them, a file that is not there, a broken copy: each with its mend."""
    for name, given in ((NAME, value), (f"{NAME}_FILE", file)):
        if given is not None:
            monkeypatch.setenv(name, given)
    with pytest.raises(SettingsError, match=said):
        secret(NAME, WHAT)


def test_a_secret_does_not_show_itself():
    """Not in its words, not in a format, not in the variables of a frame."""
    held = Secret("abc-xyz")
    assert "abc-xyz" not in f"{held} {held!r} {[held]} {held.__slots__}"
    assert held.hidden("Authorization: Bearer abc-xyz") == "Authorization: Bearer ***"
    assert not hasattr(held, "__dict__")


@pytest.mark.parametrize("name", ["token", "access_token", "client_secret", "Password", "api_key"])
def test_a_secret_among_the_options_is_refused(name):
    """Before any connector sees it, and without repeating it."""
    with pytest.raises(SettingsError, match="secrets do not belong") as caught:
        connect("files", {name: "abc-xyz"})
    assert "abc-xyz" not in str(caught.value)


def test_the_mapping_table(tmp_path):
    """Accounts by id, owners by e-mail whatever its case, and back."""
    rows = "\ufeffkind,id,crm_id\naccount,007,91\nowner,Ann@us.example,12\n"
    (tmp_path / "crm_map.csv").write_text(rows, encoding="utf-8")
    table = mapped({}, tmp_path)
    assert (table.get("account", "007"), table.get("account", "7"), table.get("owner", "ann@US.example")) == (
        "91", None, "12")
    assert (table.owner_of("12"), table.owner_of("13")) == ("ann@us.example", None)
    assert mapped({}, tmp_path / "elsewhere").known == {}


@pytest.mark.parametrize(("text", "said"), [
    ("id,crm_id\n", "its first line must be: kind,id,crm_id"), ("kind,id,crm_id\nperson,a,b\n", "row 2: kind 'person'"),
    ("kind,id,crm_id\nowner,a,\n", "row 2: needs an id and a crm_id"),
    ("kind,id,crm_id\nowner,a,1\nowner,A,2\n", "row 3: owner 'A' stands there twice, as '1' and '2'")])
def test_a_wrong_mapping_table(tmp_path, text, said):
    """The file, the row and the mend."""
    path = tmp_path / "map.csv"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        Mapped.load(path)


def test_a_mapping_table_that_is_named_must_be_there(tmp_path):
    """Else nobody would notice that it is not read."""
    with pytest.raises(SettingsError, match=r"take \[crm_options\] mapping out"):
        mapped({"mapping": "maps.csv"}, tmp_path)


@pytest.mark.parametrize("text", ["a" * 500, "<>&\"'" * 100, "é\n" * 200])
def test_markup_fits(text):
    """Escaped text is never longer than what the field takes, and no entity is cut in two."""
    made = markup(text, 300)
    assert len(made) <= 300
    assert made.count("&") == made.count(";")
    assert plain(text, 50) == plain(plain(text, 50), 50)
