"""Uplift models: econml's answer kept as text, skill only where it is, and sleeping dogs left alone."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from churnkit.errors import ModelError
from churnkit.learning import metalearners
from churnkit.learning.metalearners import BLEND, LEARNERS, Rows, folds
from churnkit.learning.proven import TAUGHT_BACK, judged, ranks
from churnkit.learning.qini import Arms, qini, resampled
from churnkit.learning.trees import matrix, word_levels
from churnkit.learning.uplift import Trial, UpliftModel, contacted, rank_by
from churnkit.simulate.responses import UNSEEN, responses

CAPACITY, NEW = 0.2, 20_000


def trial(made):
    """The experiment as the model sees it."""
    return Trial(made.drop(columns=list(UNSEEN)), made["treated"], made["stayed"], made["propensity"], made.index)


def rows_of(made):
    one = trial(made)
    levels = word_levels(one.X)
    names = tuple(one.X.columns)
    return Rows(matrix("churn", one.X, names, levels), names, levels, one.y, one.treated, one.propensity,
                np.arange(len(one.y)))


@pytest.fixture(scope="module")
def model():
    """Learnt from 8,000 accounts, a fifth of whom a contact drives out."""
    return UpliftModel.fit("churn", trial(responses(8000)))


@pytest.mark.parametrize("learner", LEARNERS)
def test_what_is_taken_out_is_econmls_own_answer(learner):
    """On rows with blanks and words, by the estimators that econml fitted, without econml."""
    rows, new = rows_of(responses(800)), rows_of(responses(300, 8))
    made = metalearners.learn(learner, rows, 7)
    mine = metalearners.uplift(metalearners.taken_out(learner, made), new.x, rows.features, rows.levels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that blanks endanger what was not drawn by lot
        theirs = made.effect(new.x).ravel()
    assert mine == pytest.approx(theirs, abs=1e-12)
    assert mine.std() > 0


def test_the_blend_is_the_mean_of_all():
    rows = rows_of(responses(800))
    alone = [metalearners.uplift(metalearners.parts(one, rows, 7), rows.x, rows.features, rows.levels)
             for one in LEARNERS]
    both = metalearners.uplift(metalearners.parts(BLEND, rows, 7), rows.x, rows.features, rows.levels)
    assert both == pytest.approx(np.mean(alone, axis=0), abs=1e-12)


def test_it_comes_back_from_its_texts(model, monkeypatch):
    """The same answers and verdict to the last digit, from text and JSON alone; econml is not asked for."""
    for name in ("econml", "econml.dr", "econml.metalearners"):
        monkeypatch.setitem(sys.modules, name, None)
    again, new = UpliftModel.from_parts(model.to_parts()), responses(500, 9)
    assert np.array_equal(again.predict(new), model.predict(new))
    assert again.verdict == model.verdict
    assert again.to_parts() == model.to_parts()


@pytest.mark.slow
def test_scoring_needs_no_econml(model, tmp_path):
    """A process that may not import it reads the texts and scores."""
    new = responses(50, 9)
    for file, text in model.to_parts().items():
        (tmp_path / file).write_text(text)
    new.to_parquet(tmp_path / "new.parquet")
    code = ("import sys; sys.modules['econml'] = None\nfrom pathlib import Path\nimport pandas as pd\n"
            "from churnkit.learning.uplift import UpliftModel\nhome = Path(sys.argv[1])\n"
            "parts = {file.name: file.read_text() for file in home.iterdir() if file.suffix in {'.txt', '.json'}}\n"
            "found = UpliftModel.from_parts(parts).predict(pd.read_parquet(home / 'new.parquet'))\n"
            "print(*map(repr, found.tolist()))")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert [*map(float, done.stdout.split())] == model.predict(new).tolist()


def test_without_econml_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "econml.dr", None)
    with pytest.raises(ModelError, match=r"pip install 'churnkit-outreach\[uplift\]'"):
        UpliftModel.fit("churn", trial(responses(1000)))


@pytest.mark.parametrize(("change", "mend"), [
    (lambda parts: parts | {"uplift.json": parts["uplift.json"].replace('"format": 1', '"format": 2')}, "Upgrade"),
    (lambda parts: parts | {"uplift.json": parts["uplift.json"].replace("tickets_open", "tickets")}, "Fit it again"),
    (lambda parts: {"uplift.json": parts["uplift.json"]}, "cannot be read"),
    (lambda parts: parts | {"uplift.json": parts["uplift.json"][:-30]}, "cannot be read"),
])
def test_texts_that_do_not_fit_are_refused(model, change, mend):
    """A newer format, other features, a missing or a torn file."""
    with pytest.raises(ModelError, match=mend):
        UpliftModel.from_parts(change(model.to_parts()))


def picked(told, truth):
    """What the highest fifth is worth, as a share of what is best at the same capacity; and the share of it harmed."""
    capacity = int(CAPACITY * len(truth))
    chosen = contacted(told, capacity)
    return truth[chosen].sum() / truth[contacted(truth, capacity)].sum(), (truth[chosen] < 0).mean()


def test_sleeping_dogs_are_left_alone(model):
    """At the same capacity: 90% of what is best, next to nobody harmed; by probability most would be, at a loss."""
    new = responses(NEW, 99)
    truth = new["uplift"].to_numpy()
    worth, harmed = picked(model.predict(new), truth)
    assert rank_by(model) == "uplift"
    assert worth >= 0.9
    assert harmed <= 0.02
    worth, harmed = picked(new["risk"].to_numpy(), truth)
    assert worth < 0
    assert harmed > 0.5


@pytest.mark.slow
def test_nine_tenths_of_the_best_are_kept():
    """On average over ten half-and-half experiments of 8,000 accounts; and next to nobody is harmed."""
    new = responses(NEW, 99)
    found = []
    for seed in range(20, 30):
        model = UpliftModel.fit("churn", trial(responses(8000, seed)))
        found.append(picked(model.predict(new), new["uplift"].to_numpy()))
    worth, harmed = np.mean(found, axis=0)
    assert worth >= 0.9
    assert harmed <= 0.02


def test_uplift_is_on_the_scale_of_the_truth(model):
    """Its mean is the average effect, and differences are about as large as they are: it can be multiplied by money."""
    new = responses(NEW, 99)
    told = model.predict(new)
    assert told.mean() == pytest.approx(new["uplift"].mean(), abs=0.02)
    assert 0.7 < np.polyfit(told, new["uplift"], 1)[0] < 1.3


def test_an_effect_that_is_the_same_for_all_is_no_skill():
    """It helps, but tells nobody apart; the verdict says so in words, and probability ranks."""
    found = UpliftModel.fit("churn", trial(responses(1500, 4, kind="same")))
    assert not found.skill
    assert found.verdict.why.startswith("no usable heterogeneity: ")
    assert rank_by(found) == "probability"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "same"])
def test_false_discoveries_are_rare(kind):
    """Where nobody differs, 95% of 40 runs or more claim nothing."""
    claims = sum(UpliftModel.fit("churn", trial(responses(1500, seed, kind=kind))).skill for seed in range(40))
    assert claims <= 2


@pytest.mark.slow
def test_the_luckiest_of_many_rankings_is_no_discovery():
    """Of 40 worlds in which four random rankings compete for the best Qini, two at most claim skill."""
    claims = 0
    for seed in range(40):
        rows, rng = rows_of(responses(1200, seed, kind="same")), np.random.default_rng(seed)
        claims += judged(rows, {name: rng.random(1200) for name in (BLEND, *LEARNERS[:3])}, seed, 300).skill
    assert claims <= 2


def test_folds_teach_each_other_back():
    """Where there is nothing to find, the Qini of cross-fitted uplift varies about twice as much as resamples of its
    fixed predictions show: here by plain least squares per arm, over 150 worlds.
    """
    found, shown = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x, treated = np.column_stack([np.ones(800), rng.normal(size=(800, 3))]), rng.random(800) < 0.5
        y = (rng.random(800) < 0.3 + 0.05 * treated).astype(float)
        fold, told = rng.permutation(800) % 5, np.empty(800)
        for held in (fold == one for one in range(5)):
            left, right = (np.linalg.lstsq(x[~held & arm], y[~held & arm])[0] for arm in (treated, ~treated))
            told[held] = x[held] @ (left - right)
        arms, told = Arms.of(y, treated), ranks(told, fold)
        found.append(qini(arms, told))
        shown.append(resampled(arms, [told], np.arange(800), 50, seed).qinis.var())
    assert np.var(found) / np.mean(shown) == pytest.approx(TAUGHT_BACK, rel=0.25)


def test_the_better_learner_is_taken_only_where_it_is_clear():
    """A learner that knows the truth beats a blind blend; one that knows no more than the blend does not replace it."""
    made = responses(4000)
    rows, truth = rows_of(made), made["uplift"].to_numpy()
    blind = np.random.default_rng(0).random(4000)
    assert judged(rows, {BLEND: blind, "X-learner": truth}, 7, 200).learner == "X-learner"
    assert judged(rows, {BLEND: truth, "X-learner": truth + 1e-12 * blind}, 7, 200).learner == BLEND


def test_folds_keep_groups_whole_and_arms_even():
    made = responses(1000)
    rows = rows_of(made)
    rows = Rows(rows.x, rows.features, rows.levels, rows.y, rows.treated, rows.propensity, np.arange(1000) // 2)
    fold = folds(rows, 5, 7)
    assert (fold[::2] == fold[1::2]).all()
    assert np.bincount(fold).tolist() == [200] * 5
    assert pd.Series(rows.treated).groupby(fold).mean().between(0.4, 0.6).all()


def test_ranks_are_within_folds():
    assert ranks(np.array([5.0, 6.0, 0.1, 0.2]), np.array([0, 0, 1, 1])).tolist() == [0.5, 1.0, 0.5, 1.0]


@pytest.mark.slow
def test_the_same_rows_give_the_same_model():
    """Bit for bit, whatever the order of the columns' dictionary."""
    made = responses(600)
    one, two = (UpliftModel.fit("churn", trial(made.assign())) for _ in range(2))
    assert one.to_parts() == two.to_parts()


def test_too_few_rows_say_so():
    """How many there are, how many are needed, and what would help."""
    with pytest.raises(ModelError, match=r"too few control rows: \d+, .* 200 are needed.*larger control group"):
        UpliftModel.fit("churn", trial(responses(1000, control=0.1)))


@pytest.mark.parametrize(("column", "value", "mend"), [
    ("stayed", 0.5, "Leave out rows"), ("stayed", np.nan, "Leave out rows"), ("propensity", 1.0, "Leave such rows"),
])
def test_a_trial_that_tells_nothing_is_refused(column, value, mend):
    made = responses(100)
    made[column] = made[column].astype(float)
    made.loc[3, column] = value
    with pytest.raises(ModelError, match=mend):
        trial(made)


def test_columns_of_other_lengths_are_refused():
    made = responses(100)
    with pytest.raises(ModelError, match="Give one for each row"):
        Trial(made.drop(columns=list(UNSEEN)), made["treated"][:-1], made["stayed"], made["propensity"], made.index)
