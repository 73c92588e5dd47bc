"""Sections of the report: verdicts follow from the numbers, whatever the method."""

import functools
import json
import re
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
from games import ROADS_TRUTH, as_frame, avoid_crowds, played, two_roads

import mfgppl as mfg
from mfgppl.models import invest, market
from mfgppl.plots import estimates, traces
from mfgppl.reporting import page as page_module
from mfgppl.reporting import sections
from mfgppl.reporting.glossary import GLOSSARY, term_of

ALL = [
    "Estimates",
    "What the coefficients mean",
    "Does the model predict what was seen?",
    "Diagnostics",
    "Identification",
    "Is the crowd near an equilibrium?",
    "Is it the crowd, or what all agents share?",
    "Sensitivity to the prior",
    "Comparison",
    "The panel",
]
POINT = [title for title in ALL if title not in ("Sensitivity to the prior", "Comparison")]


def test_the_forest_has_a_line_at_zero():
    """Dashed, over all rows, inside the figure also where every interval is on one side of it."""
    import matplotlib.pyplot as plt

    rows = pd.DataFrame(
        {"estimate": [4.0, 6.0], "lower": [3.0, 5.0], "upper": [5.0, 7.0]}, ["a", "b"]
    )
    for sign in (1.0, -1.0):
        turned = (
            rows
            if sign > 0
            else -rows[["estimate", "upper", "lower"]].set_axis(rows.columns, axis=1)
        )
        ((caption, draw),) = estimates.forest_drawing(turned, 0.9, "Wald")
        assert caption == "Estimates with Wald 90% intervals; the line is at zero"
        (axis,) = draw().axes
        zero = [line for line in axis.lines if line.get_linestyle() == "--"]
        assert [list(line.get_xdata()) for line in zero] == [[0.0, 0.0]]
        assert list(zero[0].get_ydata()) == [0.0, 1.0]  # of the axis' height
        low, high = axis.get_xlim()
        assert low <= 0.0 <= high
        assert min(low, high) <= turned["lower"].min() < turned["upper"].max() <= max(low, high)
    plt.close("all")


def only_crowds(x):
    """Drivers who turn without effort."""
    return -pyro.sample("crowding", dist.Normal(0.0, 1.0)) * x.density


def only_effort(x):
    """Drivers who do not look at the crowd."""
    return -pyro.sample("effort", dist.HalfNormal(1.0)) * (x.action == "turn")


@pytest.fixture(scope="module")
def roads():
    """A model of drivers in equilibrium, its flow known."""
    game = two_roads()
    world = mfg.solve_equilibrium(game, avoid_crowds, parameters=ROADS_TRUTH, throw=True).value
    panel = played(game, avoid_crowds, ROADS_TRUTH, 400, 5)
    return mfg.TrajectoryModel(game, avoid_crowds, panel, mean_field=world.mean_field)


@functools.cache
def fit_by(method, model):
    """Fit a model once, warnings kept in the result alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
        if method == "mle":
            return mfg.mle(model, svi_steps=0, progressbar=False)
        options = {
            "laplace": {"draws": 400},
            "vi": {"max_steps": 200, "particles": 2, "draws": 400},
            "nuts": {"draws": 250, "tune": 250, "cores": 1, "progressbar": False},
        }
        return getattr(mfg, method)(model, random_seed=1, **options[method])


def reported(path, fit, **options):
    """Return the page and the numbers of a report."""
    mfg.report(fit, path, **options)
    return path.read_text("utf-8"), json.loads(path.with_suffix(".json").read_text("utf-8"))


@pytest.fixture(scope="module")
def whole(roads, tmp_path_factory):
    """The page and the numbers of a report of the drivers with their model, by method."""

    @functools.cache
    def page_by(method):
        path = tmp_path_factory.mktemp("whole") / "r.html"
        with pytest.MonkeyPatch.context() as patch:
            if method in ("laplace", "vi"):  # the figures of draws are among those of a sampler
                patch.setattr(
                    "mfgppl.plots.predictions.drawn", lambda draw: "data:image/png;base64,"
                )
            return reported(path, fit_by(method, roads), model=roads, random_seed=1)

    return page_by


def titled(numbers, title):
    """Return the numbers of a section."""
    return next(section for section in numbers["sections"] if section["title"] == title)


@pytest.mark.parametrize("method", ["mle", "laplace", "vi", "nuts"])
def test_every_method_has_its_sections_in_order(whole, method):
    """With the model at hand each section is there, its verdict on the page and in the JSON."""
    page, numbers = whole(method)
    assert [s["title"] for s in numbers["sections"]] == (POINT if method == "mle" else ALL)
    places = [re.search(rf">[^<]*{re.escape(s['title'])}</(h3|strong)>", page).start()
              for s in numbers["sections"]]  # fmt: skip
    assert places == sorted(places)
    for section in numbers["sections"]:
        assert section["verdict"].endswith(".")
        assert page.count(section["verdict"].replace("'", "&#39;")) == 1
    assert numbers["trusted"] is all(s["good"] is not False for s in numbers["sections"])
    assert len(re.findall(r"<img src=\"data:image/png", page)) >= 5
    assert "NaN" not in json.dumps(numbers)


@pytest.mark.usefixtures("blank_figures")
def test_numbers_of_a_point_are_its_summary(roads, tmp_path):
    """Table and intervals in the JSON are those of the estimate."""
    fit = fit_by("mle", roads)
    _, numbers = reported(tmp_path / "r.html", fit, model=roads, ci_prob=0.8)
    section = titled(numbers, "Estimates")
    expected = fit.conf_int(0.8)
    for name in fit.params.index:
        assert section["table"][name]["estimate"] == pytest.approx(fit.params[name])
        assert section["numbers"]["interval"]["lower"][name] == pytest.approx(
            expected.loc[name, "lower"]
        )
    assert section["numbers"]["interval"]["kind"] == "Wald"
    signed = int(((expected["lower"] > 0) | (expected["upper"] < 0)).sum())
    assert f"of {signed} of 2 parameters exclude zero" in section["verdict"]


@pytest.mark.usefixtures("blank_figures")
def test_a_corrected_estimate_is_called_one(roads, tmp_path):
    """No posterior mode, errors of its own, and quantiles of t."""
    fair = mfg.jackknife(roads, parts=5)
    _, numbers = reported(tmp_path / "r.html", fair, model=roads)
    assert numbers["method"] == "maximum likelihood, corrected by the group jackknife"
    section = titled(numbers, "Estimates")
    assert section["numbers"]["interval"]["kind"] == "t"
    assert "90% t intervals of 4 degrees of freedom; standard errors by the jackknife" in (
        " ".join(section["notes"])
    )
    lower = fair.conf_int(0.9)["lower"]
    assert section["numbers"]["interval"]["lower"] == pytest.approx(lower.to_dict())


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("method", ["mle", "laplace"])
def test_what_no_data_can_tell_is_named_and_the_headline_says_so(method, tmp_path):
    """In INVEST the term in the crowd's mean is no evidence; the prior speaks for it."""
    game = invest.game()
    panel = played(game, invest.reward, invest.TRUTH, 200, 1)
    model = mfg.TrajectoryModel(game, invest.reward, panel)
    page, numbers = reported(tmp_path / "r.html", fit_by(method, model), model=model)
    found = {s["title"]: s for s in numbers["sections"]}
    assert found["Identification"]["good"] is False
    assert "no data can identify: crowd" in found["Identification"]["verdict"]
    assert not numbers["trusted"]
    if method == "laplace":
        assert found["Sensitivity to the prior"]["numbers"]["prior-driven"] == ["crowd"]
        assert "is driven by the prior" in page
        assert found["Diagnostics"]["good"]  # the section on identification says it
    else:
        assert "crowd has none" in found["Estimates"]["verdict"]


@pytest.mark.usefixtures("blank_figures")
def test_what_the_flow_identifies_and_the_panel_does_not_is_red(roads, tmp_path):
    """The fit's own warning counts under identification, and under diagnostics without a model."""
    fit = fit_by("laplace", roads).copy()
    said = "the data do not identify effort; its posterior is its prior"
    fit.attrs = fit.attrs | {"warnings": [said]}
    _, numbers = reported(tmp_path / "r.html", fit, model=roads)
    found = {s["title"]: s for s in numbers["sections"]}
    assert found["Identification"]["good"] is False
    assert f"this panel does not: {said}" in found["Identification"]["verdict"]
    assert found["Diagnostics"]["good"]
    _, numbers = reported(tmp_path / "r.html", fit)
    found = {s["title"]: s for s in numbers["sections"]}
    assert not found["Diagnostics"]["good"]


@pytest.mark.usefixtures("blank_figures")
def test_a_model_that_leaves_something_out_is_told(roads, tmp_path, monkeypatch):
    """Drivers who never leave the left road, whatever the model thinks of roads."""
    monkeypatch.setattr(sections, "CHECK_DRAWS", 60)  # of twenty panels no share is below 1 in 21
    frame = as_frame(roads.panel)
    frame = frame.assign(action=np.where(frame["state"] == "left", "stay", frame["action"]))
    frame = frame[frame["time"] == 0]
    after = frame.assign(time=1, action="stay", state=np.where(
        frame["action"] == "stay", frame["state"], "left"))  # fmt: skip
    panel = mfg.Trajectories.from_frame(pd.concat([frame, after]))
    game = two_roads(horizon=2)
    model = mfg.TrajectoryModel(game, only_effort, panel)
    _, numbers = reported(tmp_path / "r.html", fit_by("mle", model), model=model)
    section = titled(numbers, "Does the model predict what was seen?")
    assert section["good"] is False
    assert "choice_by_state" in section["verdict"]
    assert re.search("asks? for care", numbers["verdict"])


@pytest.mark.usefixtures("blank_figures")
def test_a_ridge_is_named_with_its_length(tmp_path):
    """Two features that are nearly one: distinguished, but far worse than their sum."""
    game = two_roads(features={"toll": ("time", [1.01, 1.0, 1.0, 1.0])})

    def reward(x):
        effort = pyro.sample("effort", dist.Normal(0.0, 10.0))
        toll = pyro.sample("toll", dist.Normal(0.0, 10.0))
        return -(effort + toll * x.toll) * (x.action == "turn")

    world = mfg.solve_equilibrium(game, reward, parameters={"effort": 0.2, "toll": 0.2}).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=2000, random_seed=1)
    model = mfg.TrajectoryModel(game, reward, panel)
    _, numbers = reported(tmp_path / "r.html", fit_by("mle", model), model=model)
    section = titled(numbers, "Identification")
    assert section["good"] is False
    assert re.search(r"(effort - [\d.]* ?toll|-[\d.]* ?effort \+ toll) is known \d+ times worse",
                     section["verdict"])  # fmt: skip
    # by hand: the features differ by 1 % at one time of four
    assert section["numbers"]["times worse than the best"] > 100


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("method", ["mle", "laplace"])
def test_comparison_says_which_model_predicts_better(roads, method, tmp_path):
    """The model without the effort of turning loses by its criterion."""
    other = mfg.TrajectoryModel(roads.game, only_crowds, roads.panel, mean_field=roads.mean_field)
    fits = fit_by(method, roads), fit_by(method, other)
    page, numbers = reported(
        tmp_path / "r.html", fits[0], against={"no effort": fits[1]}, model=roads
    )
    section = titled(numbers, "Comparison")
    assert section["verdict"].startswith("This fit")
    assert "no effort" in page
    if method == "mle":
        gap = fits[1].aic - fits[0].aic
        assert f"by {gap:.1f} against “no effort”" in section["verdict"]


@pytest.mark.usefixtures("blank_figures")
def test_a_fit_that_no_criterion_compares_is_named_with_the_remedy(roads, tmp_path):
    """AIC is of maxima of the likelihood; a posterior mode is none."""
    other = mfg.TrajectoryModel(roads.game, only_crowds, roads.panel, mean_field=roads.mean_field)
    mode = mfg.map_estimate(other, progressbar=False)
    _, numbers = reported(
        tmp_path / "r.html", fit_by("mle", roads), against={"mode": mode}, model=roads
    )
    said = titled(numbers, "Comparison")["verdict"]
    assert "“mode” was made by posterior mode" in said
    assert said.endswith("Fit each model with mfg.mle to compare them.")


@pytest.mark.parametrize("method", ["mle", "laplace"])
def test_the_page_begins_with_the_crowds_coefficient_and_what_it_does(
    roads, whole, method, tmp_path, request
):
    """With the numbers of the tables; a model that reads no crowd has neither."""
    page, numbers = whole(method)
    request.getfixturevalue("blank_figures")
    coefficient, does = numbers["lead"]
    interval = titled(numbers, "Estimates")["numbers"]["interval"]
    low, high = (interval[end]["crowding"] for end in ("lower", "upper"))
    assert coefficient.startswith("The crowd's coefficient “crowding” is ")
    assert coefficient.endswith(f"(90% interval {low:.3g} to {high:.3g}).")
    assert does.startswith("Ten points more of the crowd in state “")
    assert page.index("Ten points more") < page.index("<h2")
    alone = mfg.TrajectoryModel(roads.game, only_effort, roads.panel, mean_field=roads.mean_field)
    _, numbers = reported(tmp_path / "alone.html", fit_by(method, alone), model=alone)
    assert numbers["lead"] == []


def test_the_crowds_coefficient_is_said_by_treatment_of_the_flow(tmp_path):
    """One interval for each fit of the table of treatments."""
    game = two_roads()
    panel = played(game, avoid_crowds, ROADS_TRUTH, 200, 5)
    model = mfg.TrajectoryModel(game, avoid_crowds, panel)
    found = mfg.flows.treatments(model, parts=5, folds=3, replications=19)
    mfg.report(fit_by("mle", model), tmp_path / "r.md", model=model, treatments=found)
    said = json.loads((tmp_path / "r.json").read_text())["lead"][0]
    for way, row in found.table.xs("crowding", level="parameter").iterrows():
        assert f"{way} {row['estimate']:.3g} ({row['lower']:.3g} to {row['upper']:.3g})" in said
        assert said in (tmp_path / "r.md").read_text()


@pytest.mark.usefixtures("blank_figures")
def test_without_the_model_draws_tell_what_they_hold(roads, tmp_path):
    """Sections that need the model are left out; a given flow is not called the panel's own."""
    page, numbers = reported(tmp_path / "r.html", fit_by("laplace", roads))
    assert [s["title"] for s in numbers["sections"]] == [
        "Estimates", "Does the model predict what was seen?", "Diagnostics", "Comparison",
        "The panel",
    ]  # fmt: skip
    assert "given, held fixed" in page
    assert "plugged in and held fixed" not in page


@pytest.mark.usefixtures("blank_figures")
def test_same_seed_same_numbers(roads, whole, tmp_path):
    """What the report draws depends on its seed alone."""
    fit, one = fit_by("mle", roads), whole("mle")[1]["sections"]
    same, other = (
        reported(tmp_path / f"{seed}.html", fit, model=roads, random_seed=seed)[1]["sections"]
        for seed in (1, 2)
    )
    assert one == same
    assert one != other


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ValueError, "a point estimate does not hold its panel: give `model`"),
        ({"model": "other"}, ValueError, "`model` must be the fitted one; its parameters are"),
        ({"model": "roads", "path": "r.json"}, ValueError, "`path` is the page"),
        ({"model": "roads", "against": {"b": "draws"}}, ValueError, "fits of the same kind"),
        ({"model": "roads", "against": {"b": 3}}, TypeError, r"`against\['b'\]` must be a Data"),
        ({"model": "roads", "against": [1]}, TypeError, r"`against` must be a Mapping.*by name"),
        ({"model": 3}, TypeError, "`model` must be a TrajectoryModel"),
        ({"model": "roads", "random_seed": -1}, ValueError, "`random_seed`.*at least 0"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_told(roads, options, error, words, tmp_path):
    """What is wrong, what came and what would do."""
    known = {
        "roads": roads,
        "other": mfg.TrajectoryModel(roads.game, only_effort, roads.panel),
    }
    options = {k: known.get(v, v) if isinstance(v, str) else v for k, v in options.items()}
    if options.get("against") == {"b": "draws"}:
        options["against"] = {"b": fit_by("laplace", roads)}
    path = tmp_path / options.pop("path", "r.html")
    with pytest.raises(error, match=words):
        mfg.report(fit_by("mle", roads), path, **options)


def test_a_model_of_other_data_is_refused(roads, tmp_path):
    """Checks against a panel that was not fitted would mean nothing."""
    panel = played(roads.game, avoid_crowds, ROADS_TRUTH, 50, 6)
    with pytest.raises(ValueError, match="it has another panel or flow"):
        mfg.report(fit_by("laplace", roads), tmp_path / "r.html", model=roads.with_panel(panel))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (lambda m: m.game.replace(discount=0.5), "game"),
        (lambda m: two_roads(temperature=2.0), "game"),
    ],
)
def test_a_model_of_another_game_is_refused(roads, changed, what, tmp_path):
    """The checks would be of a game that was not fitted."""
    other = mfg.TrajectoryModel(
        changed(roads), avoid_crowds, roads.panel, mean_field=roads.mean_field
    )
    with pytest.raises(ValueError, match=f"it has another {what}"):
        mfg.report(fit_by("laplace", roads), tmp_path / "r.html", model=other)


def test_a_model_with_other_priors_is_refused(roads, tmp_path):
    def others(x):
        crowding = pyro.sample("crowding", dist.Normal(0.0, 9.0))
        return -crowding * x.density - pyro.sample("effort", dist.HalfNormal(1.0)) * (
            x.action == "turn"
        )

    other = mfg.TrajectoryModel(roads.game, others, roads.panel, mean_field=roads.mean_field)
    with pytest.raises(ValueError, match="another set of priors"):
        mfg.report(fit_by("laplace", roads), tmp_path / "r.html", model=other)


def test_fits_of_other_panels_are_not_compared(roads, tmp_path):
    """Neither draws nor points, even if agents bear the same names."""
    other = roads.with_panel(played(roads.game, avoid_crowds, ROADS_TRUTH, 400, 9))
    with pytest.raises(ValueError, match="'b' is of another"):
        mfg.report(
            fit_by("laplace", roads), tmp_path / "r.html", against={"b": fit_by("laplace", other)}
        )
    with pytest.raises(ValueError, match="at the estimate its log likelihood is"):
        mfg.report(fit_by("mle", roads), tmp_path / "r.html", model=other)


@pytest.mark.usefixtures("blank_figures")
def test_a_constant_prior_moves_nothing(roads, tmp_path):
    """Power-scaling a uniform density leaves the posterior as it is."""

    def uniform(x):
        return -pyro.sample("effort", dist.Uniform(-3.0, 3.0)) * (x.action == "turn")

    model = mfg.TrajectoryModel(roads.game, uniform, roads.panel)
    fit = fit_by("laplace", model)
    found = mfg.checks.contraction(fit, model, prior_draws=100)
    assert found.loc["effort", "prior_sensitivity"] == 0.0
    _, numbers = reported(tmp_path / "r.html", fit, model=model)
    assert "Sensitivity to the prior" in [s["title"] for s in numbers["sections"]]


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")  # ArviZ's own
@pytest.mark.parametrize("draws", [1, 2, 30])
def test_few_draws_make_a_page(roads, draws, tmp_path):
    """What cannot be said of few draws is left out."""
    fit = mfg.laplace(roads, draws=draws, random_seed=1, progressbar=False)
    _, numbers = reported(tmp_path / "r.html", fit, model=roads)
    assert "Estimates" in [s["title"] for s in numbers["sections"]]


def test_labels_may_hold_dollars_and_vectors_many_entries(tmp_path, monkeypatch):
    """Prices as labels are no formulas; pair plots stay small."""
    monkeypatch.setattr(estimates, "MOST_PAIRS", 2)
    monkeypatch.setattr(estimates, "MOST_ROWS", 3)
    frame = as_frame(played(two_roads(), avoid_crowds, ROADS_TRUTH, 60, 1))
    frame["state"] = frame["state"].replace({"left": "$0_$5"})
    frame["action"] = frame["action"].replace({"turn": "move $^$ up"})
    panel = mfg.Trajectories.from_frame(frame)
    game = mfg.MeanFieldGame(
        states=panel.space.coordinates, actions=panel.actions, horizon=4,
        transition=panel.estimate_transition(prior_count=0.1),
        initial=panel.initial_distribution(),
    )  # fmt: skip

    def reward(x):
        w = pyro.sample("w$", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
        pyro.deterministic("twice", 2 * w)
        return w.sum() * (x.action == "stay")

    model = mfg.TrajectoryModel(game, reward, panel)
    page, numbers = reported(tmp_path / "r.html", fit_by("laplace", model), model=model)
    table = {s["title"]: s["table"] for s in numbers["sections"]}["Estimates"]
    assert len(table) == 5  # parameters, not what is computed from them
    assert "$0_$5" in page


@pytest.mark.usefixtures("blank_figures")
def test_a_flow_whose_count_costs_much_has_a_section_in_red(tmp_path):
    """With the corrected numbers; the section is not there where no term reads the crowd."""
    panel = mfg.Trajectories.from_frame(market.frame(300, random_seed=3), **market.COLUMNS)
    model = market.model(panel)
    fit = mfg.mle(model, svi_steps=0, progressbar=False)
    page = mfg.report(fit, tmp_path / "a.html", model=model)
    sections = {
        s["title"]: s for s in json.loads(page.with_suffix(".json").read_text())["sections"]
    }
    found = sections["Is the crowd's flow known well enough?"]
    assert found["good"] is False
    corrected = fit.counted_flow.table["corrected"]
    assert f"crowding {corrected['crowding']:.3g}" in found["verdict"]
    assert "menu_cost" not in found["verdict"]
    assert sections["Diagnostics"]["good"] is True


@pytest.mark.usefixtures("blank_figures")
def test_a_summary_is_markdown_of_the_same_sections(roads, whole, tmp_path):
    """Verdicts part by part, a table that Markdown takes, the JSON of the page; no figure drawn."""
    fit = fit_by("laplace", roads)
    options = {"title": "A *star* | report", "random_seed": 1}
    text, numbers = reported(tmp_path / "r.md", fit, model=roads, **options)
    assert numbers["sections"] == whole("laplace")[1]["sections"]
    assert text.splitlines()[1] == r"# A \*star\* \| report"
    parts = re.findall("^## (.*)$", text, flags=re.MULTILINE)
    assert parts == [
        "What was found", "Whether to trust it", "What would change the answer", "What was seen",
    ]  # fmt: skip
    for section in numbers["sections"]:
        assert f"**{section['title']}**" in text
    rows = [line for line in text.splitlines() if line.startswith("| crowding")]
    assert len(rows) == 1
    assert rows[0].count("|") == 7  # estimate, deviation, interval, maximum likelihood
    mfg.report(fit, tmp_path / "r.md")  # over its own
    (tmp_path / "other.md").write_text("a letter")
    with pytest.raises(FileExistsError, match=r"other\.md exists and is no report"):
        mfg.report(fit, tmp_path / "other.md", model=roads)


def test_the_maximum_likelihood_stands_beside_the_posterior(roads, whole):
    """In the short table of the page, with the estimate of `mle`."""
    page, _ = whole("laplace")
    point = fit_by("mle", roads).params
    row = re.search(r'<th scope="row">crowding</th>(.*?)</tr>', page).group(1)
    assert re.findall(r"<td>(.*?)</td>", row)[-1] == f"{point['crowding']:.4g}"


def test_cells_hold_no_inf_and_tables_no_blank_rows():
    """What is infinite is a sign, what is not there is left out."""
    table = pd.DataFrame({"a": [1.0, np.nan, np.inf], "b": [np.nan] * 3}, index=["x", "y", "z"])
    cells = page_module._cells(table)
    assert cells.to_dict() == {"a": {"x": "1", "z": "∞"}}


def test_terms_are_explained_once_and_found_by_their_headings():
    """Each form has one term; a heading with a level finds that of its word."""
    forms = [form for term in GLOSSARY for form in term.written]
    assert len(set(forms)) == len(forms)
    assert len({term.anchor for term in GLOSSARY}) == len(GLOSSARY)
    assert term_of("lower 90%").word == term_of("from (90%)").word == "interval"
    assert term_of("nothing of the kind") is None


def test_ranks_of_equal_chains_stay_in_the_band_and_of_others_do_not():
    """The band of Dvoretzky, Kiefer and Wolfowitz, at sizes where chance alone is seen."""
    rng, place = np.random.default_rng(1), np.linspace(0, 1, 100)
    alike = rng.standard_normal((4, 500))
    inside = [
        np.abs(traces.rank_differences(rng.standard_normal((4, 500)), place)).max()
        <= traces.band_of_ranks(4, 500)
        for _ in range(50)
    ]
    assert np.mean(inside) >= 0.96
    alike[0] += 0.5
    away = np.abs(traces.rank_differences(alike, place)).max(1)
    assert away[0] > traces.band_of_ranks(4, 500)
