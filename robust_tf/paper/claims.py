"""What the paper says of its results, in our words, as checks that any results can take.

Sources: Cavey, Dolan and Stock (2020), sections V to IX. Where a sentence names a number
without saying how exact it is, five points are allowed. All accuracies are in percent.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from robust_tf.paper import experiments
from robust_tf.paper.accuracies import PIXELS, Accuracies
from robust_tf.perturbations import KINDS

_ROUGHLY = 5.0


# Whether a sentence holds, and the numbers that say so.
Verdict = tuple[bool, str]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence of the paper.

    Attributes:
        section: where it stands.
        text: what it says, in our words.
        check: from accuracies to a verdict; raises `LookupError` where some are missing.
    """

    section: str
    text: str
    check: Callable[[Accuracies], Verdict]


def check(accuracies: Accuracies) -> pd.DataFrame:
    """Checks all sentences.

    Args:
        accuracies: of ours or of the published figures.

    Returns:
        One row per claim: section, text, verdict ("holds", "does not hold", or "cannot be
        told" where models are missing) and evidence.
    """
    rows = []
    for claim in CLAIMS:
        try:
            holds, evidence = claim.check(accuracies)
            verdict = "holds" if holds else "does not hold"
        except LookupError:
            verdict, evidence = "cannot be told", ""
        rows.append((claim.section, claim.text, verdict, evidence))
    return pd.DataFrame(rows, columns=["section", "text", "verdict", "evidence"])


def agreeing(verdicts: pd.Series, by_seed: Iterable[Accuracies]) -> list[str]:
    """How many seeds say of each sentence what the mean over all does: "2 of 3".

    Args:
        verdicts: of the means, as of `check`.
        by_seed: accuracies of each seed alone.

    Returns:
        A text for each sentence; empty where no seed alone can tell.
    """
    tables = [check(accuracies)["verdict"] for accuracies in by_seed]
    texts = []
    for place, verdict in enumerate(verdicts):
        told = [table[place] for table in tables if table[place] != "cannot be told"]
        texts.append(f"{told.count(verdict)} of {len(told)}" if told else "")
    return texts


def _drop(dataset: str, test: str, level: float, low: float, high: float) -> Callable:
    """A natural model falls by so many points."""

    def checked(a: Accuracies) -> Verdict:
        drop = a.natural(dataset) - a.natural(dataset, test, level)
        return low <= drop <= high, f"falls by {drop:.2f}"

    return checked


def _near(dataset: str, test: str, level: float, expected: float) -> Callable:
    """A natural model has roughly this accuracy."""

    def checked(a: Accuracies) -> Verdict:
        found = a.natural(dataset, test, level)
        return abs(found - expected) <= _ROUGHLY, f"{found:.2f}"

    return checked


def _linear(dataset: str, kinds: Iterable[str]) -> Callable:
    def checked(a: Accuracies) -> Verdict:
        levels = experiments.IMPACT_LEVELS["hot"]
        fits = {}
        for kind in kinds:
            values = [a.natural(dataset, kind, level) for level in levels]
            fits[kind] = np.corrcoef(levels, values)[0, 1] ** 2
        evidence = ", ".join(f"{kind} R² {fit:.3f}" for kind, fit in fits.items())
        return min(fits.values()) >= 0.98, evidence

    return checked


def _order(dataset: str, least: str, most: str) -> Callable:
    def checked(a: Accuracies) -> Verdict:
        found = {kind: a.natural(dataset, kind, 5) for kind in PIXELS}
        evidence = ", ".join(f"{kind} {value:.2f}" for kind, value in found.items())
        right = max(found, key=found.__getitem__) == least
        return right and min(found, key=found.__getitem__) == most, evidence

    return checked


def _faster_on_mnist(a: Accuracies) -> Verdict:
    drops = [a.natural(name) - a.natural(name, "noise", 0.05) for name in ("mnist", "cifar10")]
    return drops[0] > drops[1], f"falls by {drops[0]:.2f} and {drops[1]:.2f}"


def _at_least(
    dataset: str, strategy: str, kind: str, level: float, least: float, natural: bool = False
) -> Callable:
    """A robust model has so much in every test."""

    def checked(a: Accuracies) -> Verdict:
        found = min(a.tests(dataset, strategy, kind, level, natural))
        return found >= least, f"lowest {found:.2f}"

    return checked


def _hot_7_improves(a: Accuracies) -> Verdict:
    worst = min(a.natural("mnist", kind, 2) for kind in PIXELS)
    gain = a.robust("mnist", "constant", "hot", 7, "hot", 2) - worst
    return abs(gain - 20) <= _ROUGHLY, f"{gain:+.2f}"


def _two_stuck(a: Accuracies) -> Verdict:
    tests = a.tests("cifar10", "constant", "stuck", 2, natural=True)
    higher = a.robust("cifar10", "constant", "stuck", 2) > a.natural("cifar10")
    return higher and min(tests) > 86, f"natural {tests[-1]:.2f}, lowest {min(tests):.2f}"


def _dead_hurts_hot(a: Accuracies) -> Verdict:
    levels = experiments.GRID_LEVELS["dead"]
    falls = [
        a.robust("cifar10", "constant", "dead", level)
        - a.robust("cifar10", "constant", "dead", level, "hot", 2)
        for level in levels
    ]
    return max(falls) <= 4, f"by {max(falls):.2f} at most"


def _gain(dataset: str, strategy: str, kind: str, expected: float) -> Callable:
    """The best model of a strategy improves the worst test of the natural one."""
    level = max(KINDS[kind].test_levels)

    def checked(a: Accuracies) -> Verdict:
        before = a.natural(dataset, kind, level)
        after = max(
            a.robust(dataset, strategy, kind, training, kind, level)
            for training in experiments.GRID_LEVELS[kind]
        )
        gain = after - before
        return gain >= expected - _ROUGHLY, f"{before:.2f} to {after:.2f}: {gain:+.2f}"

    return checked


def _lock_step(a: Accuracies) -> Verdict:
    spans = []
    for level in experiments.GRID_LEVELS["hot"]:
        tests = a.tests("mnist", "incremental", "hot", level, natural=True)
        spans.append(max(tests) - min(tests))
    return max(spans) < 0.5, f"at most {max(spans):.2f} apart"


def _strongest_blur_is_best(dataset: str) -> Callable:
    def checked(a: Accuracies) -> Verdict:
        means = {
            level: np.mean(a.tests(dataset, "incremental", "blur", level))
            for level in experiments.GRID_LEVELS["blur"]
        }
        evidence = ", ".join(f"{level:g}: {mean:.2f}" for level, mean in means.items())
        return max(means, key=means.__getitem__) == max(means), evidence

    return checked


def _transfer_hot(a: Accuracies) -> Verdict:
    found = [
        a.robust("cifar10", "transfer", "hot", level, "hot", 2)
        for level in experiments.GRID_LEVELS["hot"]
    ]
    return max(found) >= 87, f"{min(found):.2f} to {max(found):.2f}"


def _dead_is_worst(a: Accuracies) -> Verdict:
    levels = experiments.GRID_LEVELS["hot"]
    means = {
        test: np.mean([a.robust("cifar10", "transfer", "hot", n, test, 2) for n in levels])
        for test in PIXELS
    }
    evidence = ", ".join(f"{test} {mean:.2f}" for test, mean in means.items())
    return min(means, key=means.__getitem__) == "dead", evidence


def _within(dataset: str, strategy: str, kind: str, points: float) -> Callable:
    """The best model of a strategy loses at most so much in each test."""

    def checked(a: Accuracies) -> Verdict:
        truth = a.natural(dataset)
        worst = {
            level: truth - min(a.tests(dataset, strategy, kind, level))
            for level in experiments.GRID_LEVELS[kind]
        }
        level = min(worst, key=worst.__getitem__)
        return worst[level] <= points, f"level {level:g}: {worst[level]:.2f} below natural"

    return checked


def _all(*checks: Callable) -> Callable:
    def checked(a: Accuracies) -> Verdict:
        verdicts = [each(a) for each in checks]
        return all(holds for holds, _ in verdicts), "; ".join(text for _, text in verdicts)

    return checked


def _dead_improves_marginally(a: Accuracies) -> Verdict:
    before = a.natural("cifar10", "dead", 2)
    gains = {
        strategy: max(
            a.robust("cifar10", strategy, "dead", level, "dead", 2)
            for level in experiments.GRID_LEVELS["dead"]
        )
        - before
        for strategy in experiments.FIGURE_LETTERS
    }
    evidence = ", ".join(f"{strategy} {gain:+.2f}" for strategy, gain in gains.items())
    return max(gains.values()) <= 1, evidence


def _constant_never_best(dataset: str) -> Callable:
    """Constant training is best for no kind, by its highest accuracy on perturbed images."""

    def checked(a: Accuracies) -> Verdict:
        winners = {}
        for kind, levels in experiments.GRID_LEVELS.items():
            best = {
                strategy: max(min(a.tests(dataset, strategy, kind, level)) for level in levels)
                for strategy in experiments.FIGURE_LETTERS
            }
            winners[kind] = max(best, key=best.__getitem__)
        evidence = ", ".join(f"{kind}: {winner}" for kind, winner in winners.items())
        return "constant" not in winners.values(), evidence

    return checked


def _worst_fall(a: Accuracies) -> Verdict:
    falls = [
        a.natural("mnist") - a.natural("mnist", kind, level)
        for kind, levels in experiments.IMPACT_LEVELS.items()
        for level in levels
    ]
    return max(falls) >= 80, f"{max(falls):.2f}"


def _within_three(dataset: str) -> Callable:
    """For every kind some model of some strategy loses at most three points in each test."""

    def checked(a: Accuracies) -> Verdict:
        truth = a.natural(dataset)
        losses = {
            kind: truth
            - max(
                min(a.tests(dataset, strategy, kind, level))
                for strategy in experiments.FIGURE_LETTERS
                for level in levels
            )
            for kind, levels in experiments.GRID_LEVELS.items()
        }
        evidence = ", ".join(f"{kind} {loss:.2f}" for kind, loss in losses.items())
        return max(losses.values()) <= 3, evidence

    return checked


CLAIMS = (
    Claim("V.A", "Dead pixels hardly touch MNIST.", _drop("mnist", "dead", 5, -1, 1)),
    Claim(
        "V.A",
        "Five stuck pixels cost MNIST roughly 30 points.",
        _drop("mnist", "stuck", 5, 30 - _ROUGHLY, 30 + _ROUGHLY),
    ),
    Claim(
        "V.A",
        "Five hot pixels cost MNIST roughly 45 points.",
        _drop("mnist", "hot", 5, 45 - _ROUGHLY, 45 + _ROUGHLY),
    ),
    Claim(
        "V.A",
        "On MNIST accuracy falls linearly with the number of stuck or hot pixels.",
        _linear("mnist", ("stuck", "hot")),
    ),
    Claim(
        "V.A",
        "On CIFAR-10 stuck pixels do the least harm and hot ones the most.",
        _order("cifar10", least="stuck", most="hot"),
    ),
    Claim(
        "V.A",
        "Five hot pixels cost CIFAR-10 roughly 6 points.",
        _drop("cifar10", "hot", 5, 4, 8),
    ),
    Claim("V.B", "MNIST falls to about 18 % at noise 0.05.", _near("mnist", "noise", 0.05, 18)),
    Claim(
        "V.B", "CIFAR-10 falls to about 63 % at noise 0.05.", _near("cifar10", "noise", 0.05, 63)
    ),
    Claim("V.B", "Noise hurts MNIST more than CIFAR-10.", _faster_on_mnist),
    Claim("V.C", "Blur of σ 1 costs MNIST about 7 points.", _drop("mnist", "blur", 1, 4, 10)),
    Claim("V.C", "Blur of σ 1 leaves CIFAR-10 at 31 %.", _near("cifar10", "blur", 1, 31)),
    Claim(
        "VI.A",
        "Constant training with 7 hot pixels keeps MNIST above 97 % in all pixel tests.",
        _at_least("mnist", "constant", "hot", 7, 97),
    ),
    Claim(
        "VI.A",
        "That is 20 points more than the natural model has with two hot pixels.",
        _hot_7_improves,
    ),
    Claim(
        "VI.A",
        "Constant training with two stuck pixels lifts CIFAR-10 above the natural model on "
        "natural images, and above 86 % in all pixel tests.",
        _two_stuck,
    ),
    Claim(
        "VI.A",
        "Constant training with dead pixels costs CIFAR-10 up to 4 points on hot ones.",
        _dead_hurts_hot,
    ),
    Claim(
        "VI.A",
        "Constant training gains 21 points on CIFAR-10's worst noise.",
        _gain("cifar10", "constant", "noise", 21),
    ),
    Claim(
        "VI.A",
        "Constant training gains 40 points on CIFAR-10's worst blur.",
        _gain("cifar10", "constant", "blur", 40),
    ),
    Claim(
        "VI.B",
        "Incremental training on hot pixels keeps all of MNIST's pixel tests within half a "
        "point of each other.",
        _lock_step,
    ),
    Claim(
        "VI.B",
        "Incremental training gains 75 points on MNIST's noise of 0.05.",
        _gain("mnist", "incremental", "noise", 75),
    ),
    Claim(
        "VI.B",
        "Incremental training gains 50 points on CIFAR-10's worst blur.",
        _gain("cifar10", "incremental", "blur", 50),
    ),
    Claim(
        "VI.B",
        "On CIFAR-10 incremental training is best with the strongest blur.",
        _strongest_blur_is_best("cifar10"),
    ),
    Claim(
        "VI.C",
        "Transfer with noise 0.05 keeps CIFAR-10 around 85 % in all noise tests.",
        _at_least("cifar10", "transfer", "noise", 0.05, 82, natural=True),
    ),
    Claim("VI.C", "Transfer with hot pixels reaches 87 % on CIFAR-10's hot pixels.", _transfer_hot),
    Claim("VI.C", "Those models are at their worst on dead pixels.", _dead_is_worst),
    Claim(
        "VII",
        "Two pixels cost the natural model 19 points on MNIST at most, and 2 on CIFAR-10.",
        _all(_drop("mnist", "hot", 2, 0, 20), _drop("cifar10", "hot", 2, 0, 3)),
    ),
    Claim(
        "VII",
        "Transfer brings MNIST's hot and stuck pixels to within a point of natural.",
        _all(
            _within("mnist", "transfer", "hot", 1),
            _within("mnist", "transfer", "stuck", 1),
        ),
    ),
    Claim("VII", "Whatever the strategy, dead pixels improve little.", _dead_improves_marginally),
    Claim(
        "VII",
        "Incremental training brings CIFAR-10's noise to within a point of natural.",
        _within("cifar10", "incremental", "noise", 1),
    ),
    Claim(
        "VII",
        "All three strategies bring MNIST's noise to within a point of natural.",
        _all(*(_within("mnist", name, "noise", 1) for name in experiments.FIGURE_LETTERS)),
    ),
    Claim(
        "VII",
        "Incremental training with σ 1 brings CIFAR-10's blur to within 3 points of natural.",
        _within("cifar10", "incremental", "blur", 3),
    ),
    Claim(
        "VII",
        "Transfer brings MNIST's blur to within a point of natural.",
        _within("mnist", "transfer", "blur", 1),
    ),
    Claim("VII", "Constant training is best for no kind (MNIST).", _constant_never_best("mnist")),
    Claim(
        "VII",
        "Constant training is best for no kind (CIFAR-10).",
        _constant_never_best("cifar10"),
    ),
    Claim("IX", "In the worst case accuracy falls by over 80 points.", _worst_fall),
    Claim(
        "IX",
        "For each kind some training stays within 3 points of natural (MNIST).",
        _within_three("mnist"),
    ),
    Claim(
        "IX",
        "For each kind some training stays within 3 points of natural (CIFAR-10).",
        _within_three("cifar10"),
    ),
)
