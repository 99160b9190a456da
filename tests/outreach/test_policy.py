"""outreach.toml: its defaults, and every mistake named with file, line, key and mend."""

import pytest

from churnkit.errors import SettingsError
from churnkit.outreach.policy import SIGNALS, Policy


def write(tmp_path, text):
    path = tmp_path / "outreach.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_default_covers_everything():
    """Each signal has its rule play, each target its model play, and what must always be done is marked."""
    policy = Policy.default()
    assert {play.signal for play in policy.plays.values() if play.signal} == set(SIGNALS) == set(policy.signals)
    assert [play.target for play in policy.plays.values() if play.open] == ["churn", "expansion", "maintenance"]
    assert {name for name, play in policy.plays.items() if play.always} == {"answer_person", "escalation"}
    assert (policy.pilot.on, policy.pilot.max_new_per_run, policy.control.share) == (True, 50, 0.1)


def test_what_is_left_out_keeps_its_default(tmp_path):
    """A short file changes what it names; plays, if named, are all there are."""
    policy = Policy.load(write(tmp_path, "[cooldown]\ndays = 5\n[signals.low_nps]\nat_most = 3\n"))
    assert (policy.cooldown.days, policy.cooldown.after["saved"]) == (5, 60)
    assert (policy.signals["low_nps"].at_most, policy.signals["low_nps"].within_days) == (3, 30)
    assert policy.plays == Policy.default().plays
    only = Policy.load(write(tmp_path, "[plays.x]\ntarget = 'churn'\nopen = 0.5\nsteps = ['Call.']\n"))
    assert list(only.plays) == ["x"]
    assert Policy.load(tmp_path) == only


@pytest.mark.parametrize(("text", "message"), [
    ("[pilot]\nonn = true", r"line 2: unknown key 'pilot.onn'. Did you mean 'on'\?"),
    ("[pilott]\non = true", r"line 1: unknown key 'pilott'. Did you mean 'pilot'\?"),
    ("[control]\nshare = 2", r"line 2: 'control.share' Input should be less than 1"),
    ("[control\nshare = 2", r"not valid TOML"),
    ("[capacity]\n\nper_week = 'ten'", r"line 3: 'capacity.per_week' Input should be a valid integer"),
    ("[plays.x]\ntarget = 'chrn'\nopen = 0.5\nsteps = ['a']", r"line 2: 'plays.x.target' Input should be 'churn'"),
    ("[plays.x]\ntarget = 'churn'\nsteps = ['a']", r"line 1: 'plays.x' needs either 'open'"),
    ("[plays.x]\ntarget = 'churn'\nopen = 0.5\nsteps = []", r"line 4: 'plays.x.steps'"),
    ("[plays.x]\ntarget = 'churn'\nopen = 0.2\nclose = 0.3\nsteps = ['a']", r"make 'close' the lower one"),
    ("[plays.x]\ntarget = 'churn'\nsignal = 'low_nsp'\nsteps = ['a']", r"Did you mean 'low_nps'\?"),
    ("[plays.x]\ntarget = 'churn'\nopen = 0.2\nwho = 'me'\nsteps = ['a']", r"write 'owner', 'manager' or 'skill:NAME'"),
    ("[plays.x]\ntarget = 'churn'\nopen = 0.2\nvalid_days = 1\nsteps = ['a']", r"raise 'valid_days'"),
    ("[human_first]\nsignals = ['person_askd']", r"line 2: 'human_first.signals' names 'person_askd'.*Did you mean"),
    ("[cooldown.after]\nsavd = 3", r"line 2: 'cooldown.after' names 'savd'.*Did you mean 'saved'\?"),
    ("[signals.low_np]\ncount = 3", r"line 1: 'signals' names 'low_np'.*Did you mean 'low_nps'\?"),
    ("schema_version = 9", r"Upgrade churnkit"),
    ("plays = 3", r"line 1: 'plays' must be a section of its own"),
])
def test_mistakes_are_named(tmp_path, text, message):
    """The message says where and what to do."""
    with pytest.raises(SettingsError, match=message):
        Policy.load(write(tmp_path, text))


def test_no_file(tmp_path):
    """A missing policy tells how to get one."""
    with pytest.raises(SettingsError, match="churnkit init"):
        Policy.load(tmp_path / "none.toml")


def test_no_control_group_is_warned_of(tmp_path):
    """A share of 0 is allowed, with a warning."""
    path = write(tmp_path, "[control]\nshare = 0")
    with pytest.warns(UserWarning, match="leaves no control group"):
        assert Policy.load(path).control.share == 0


@pytest.mark.parametrize(("text", "message"), [
    ("[caps]\ntouches = 0", r"line 2: 'caps.touches' Input should be greater than or equal to 1"),
    ("[quiet]\nrenewal = ['buying']", r"line 2: 'quiet.renewal"),
    ("[hours]\ndays = ['mo']", r"line 1: 'hours' names the day 'mo'; use mon"),
    ("[hours]\nzone = 'Paris'", r"line 2: 'hours.zone' 'Paris' is no time zone"),
    ("[capacity]\nslack = 1", r"line 2: 'capacity.slack' Input should be less than 1"),
    ("[[suppressions]]\naccount = 'A1'\nreason = ''", r"'suppressions"),
    ("[plays.x]\ntarget = 'churn'\nsignal = 'low_nps'\ndrivers = ['usage']\nsteps = ['a']", r"leave 'drivers' out"),
    ("[plays.x]\ntarget = 'churn'\nopen = 0.2\nmin_value = 9\nmax_value = 3\nsteps = ['a']", r"the higher one"),
    ("[plays.x]\ntarget = 'churn'\nopen = 0.2\neffect = 2\nsteps = ['a']", r"line 4: 'plays.x.effect'"),
])
def test_mistakes_in_caps_and_plays_are_named(tmp_path, text, message):
    """The newer keys are told as the older ones are."""
    with pytest.raises(SettingsError, match=message):
        Policy.load(write(tmp_path, text))


def test_the_shown_file_is_the_default(tmp_path):
    """What outreach.toml shows is what holds where nothing is said."""
    silent = Policy(plays=Policy.default().plays, signals=Policy.default().signals)
    for section in ("caps", "quiet", "hours", "control", "ranking", "capacity", "pilot"):
        assert getattr(silent, section) == getattr(Policy.default(), section)
