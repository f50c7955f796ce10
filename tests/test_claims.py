import pandas as pd
import pytest

from robust_tf.paper import claims, numbers


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return numbers.published_points()


def verdicts(points) -> dict[str, str]:
    table = claims.check(claims.Accuracies(points))
    return dict(zip(table["text"], table["verdict"]))


def test_every_sentence_can_be_told_from_the_published_figures(published):
    table = claims.check(claims.Accuracies(published))
    assert len(table) == len(claims.CLAIMS) >= 30
    assert set(table["verdict"]) == {"holds", "does not hold"}
    assert table["evidence"].str.contains(r"\d").sum() >= len(table) - 2
    assert not table["text"].duplicated().any()


def test_known_verdicts(published):
    found = verdicts(published)
    # 97.24 and more with 7 hot pixels; 70.5 % instead of 63; dead pixels hurt CIFAR-10 most.
    expected = {
        "Constant training with 7 hot pixels keeps MNIST above 97 % in all pixel tests.": "holds",
        "CIFAR-10 falls to about 63 % at noise 0.05.": "does not hold",
        "On CIFAR-10 stuck pixels do the least harm and hot ones the most.": "does not hold",
        "Dead pixels hardly touch MNIST.": "holds",
    }
    assert {text: found[text] for text in expected} == expected


def test_seeds_that_say_the_same_are_counted(published):
    text = "Dead pixels hardly touch MNIST."
    mine = (published["dataset"] == "mnist") & (published["test_perturb"] == "dead")
    other = published.assign(mean=published["mean"].where(~mine, published["mean"] - 0.2))
    seeds = [claims.Accuracies(points) for points in (published, other, published, other.head(3))]
    found = claims.check(seeds[0])
    agreeing = claims.agreeing(found["verdict"], seeds)
    assert dict(zip(found["text"], agreeing))[text] == "2 of 3"  # the last cannot tell
    assert set(claims.agreeing(found["verdict"], [])) == {""}


def test_numbers_decide(published):
    text = "Constant training with 7 hot pixels keeps MNIST above 97 % in all pixel tests."
    changed = published.copy()
    mine = (changed["figure"] == "A.1") & (changed["dataset"] == "mnist")
    mine &= (changed["train_perturb"] == "hot") & (changed["train_level"] == 7)
    changed.loc[mine & (changed["test_perturb"] == "stuck"), "mean"] = 0.96
    assert verdicts(published)[text] == "holds"
    assert verdicts(changed)[text] == "does not hold"


def test_missing_models_leave_sentences_open(published):
    found = verdicts(published[published["dataset"] == "mnist"])
    assert found["Dead pixels hardly touch MNIST."] == "holds"
    assert found["Blur of σ 1 leaves CIFAR-10 at 31 %."] == "cannot be told"
    assert found["Noise hurts MNIST more than CIFAR-10."] == "cannot be told"
    assert set(verdicts(published.head(0)).values()) == {"cannot be told"}
