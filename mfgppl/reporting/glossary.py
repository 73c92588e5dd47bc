"""The words of a report that are explained: on hover, and at its end."""

from typing import NamedTuple


class Term(NamedTuple):
    """A word, how tables write it, and what it means."""

    word: str
    written: tuple[str, ...]
    meaning: str

    @property
    def anchor(self) -> str:
        """Where it stands on the page."""
        return "term-" + "".join(c if c.isalnum() else "-" for c in self.word.lower())


GLOSSARY = (
    Term("interval", ("lower", "upper", "from", "to"),
         "Of draws: where the value lies with the stated probability, given data and prior. Of a "
         "point estimate: what holds the true value in that share of panels drawn again."),
    Term("standard error", ("std_err", "std. error", "se", "dse"),
         "Standard deviation of an estimate over panels drawn again."),
    Term("standard deviation", ("sd", "std. deviation", "posterior_sd", "prior_sd"),
         "Of the posterior or the prior of a parameter."),
    Term("maximum likelihood", ("mle", "maximum likelihood"),
         "The parameters under which the panel is most probable, without a prior."),
    Term("R-hat", ("r_hat",),
         "Spread over all chains against that within chains; above 1.01 they have not met."),
    Term("effective sample size", ("ess_bulk", "ess_tail"),
         "Independent draws that would know a mean (bulk) or an interval's ends (tail) as well."),
    Term("Monte Carlo error", ("mcse_mean", "mcse_sd", "mcse"),
         "Error of a posterior mean or standard deviation for having so many draws and no more."),
    Term("divergence", ("divergences",),
         "A step at which the sampler lost its way; draws near it may be missing."),
    Term("p", ("p",),
         "Probability that a panel drawn from the fitted model is at least as unusual; near 0 it "
         "speaks against the model."),
    Term("within", ("within",), "Share of the entries of an array that lie inside their bands."),
    Term("deviation", ("deviation",),
         "Distance of what was observed from its prediction, in standard deviations."),
    Term("contraction", ("contraction",),
         "Share of the prior variance that the data remove; near 0 the prior alone speaks."),
    Term("sensitivity", ("prior_sensitivity", "likelihood_sensitivity"),
         "How the posterior moves where prior or likelihood are raised to a power near 1."),
    Term("elpd", ("elpd", "elpd_diff"),
         "Expected log predictive density of what is left out, in nats; larger predicts better."),
    Term("effective parameters", ("effective parameters",),
         "How many parameters the data determine, as leaving out measures it."),
    Term("nats", ("log likelihood, nats",),
         "Unit of log probabilities; 1 nat is a factor of 2.7."),
    Term("exploitability", ("exploitability",),
         "What one agent could gain by another plan while others go on; 0 in a Nash equilibrium."),
    Term("equilibrium", ("in equilibrium", "residual of the flow"),
         "A flow that agents generate who respond to it."),
    Term("identified", ("directions that data can identify", "that no data can identify"),
         "A direction of the parameters that changes what agents do."),
)  # fmt: skip
BY_FORM = {form: term for term in GLOSSARY for form in term.written}


def term_of(heading: object) -> Term | None:
    """Return the term that a heading of a table stands for, None where none is needed."""
    text = str(heading)
    return BY_FORM.get(text) or BY_FORM.get(text.split(" (")[0]) or BY_FORM.get(text.split(" ")[0])
