import io

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from robust_tf import plots
from tests.test_results import trials


def saved(figure: matplotlib.figure.Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_accuracy_shows_means_and_deviations():
    table = pd.concat([trials(), trials("b", "constant", "hot", 6, 0.01)], ignore_index=True)
    figure = plots.accuracy(table)
    axes = figure.axes[0]
    heights = [[bar.get_height() for bar in container] for container in axes.containers]
    np.testing.assert_allclose(heights, [[95, 77, 51], [96, 78, 52]], atol=1e-9)
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "natural", "hot\n2", "noise\n0.0255",
    ]  # fmt: skip
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["natural", "constant hot 6"]
    hatches = {container[0].get_hatch() for container in axes.containers}
    assert len(hatches) == 2  # readable without colour
    spans = [np.ptp(line.get_ydata()) for line in axes.lines if len(line.get_ydata())]
    assert np.nanmax(spans) == pytest.approx(2 * 100 * np.std([0.75, 0.77, 0.79]))
    assert "%" in axes.get_ylabel()
    assert len(saved(figure)) > 10_000


def test_training_curves_show_the_history():
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "accuracy": [0.5, 0.7, 0.8],
            "loss": [2.0, 1.0, 0.5],
            "perturbed_fraction": [0.05, 0.5, 0.95],
        }
    )
    figure = plots.training_curves({"natural": history, "incremental hot 2": history})
    lines = [axes.lines[0].get_ydata() for axes in figure.axes]
    np.testing.assert_allclose(lines[0], [50, 70, 80])
    np.testing.assert_allclose(lines[1], [2.0, 1.0, 0.5])
    np.testing.assert_allclose(lines[2], [5, 50, 95])
    assert all(axes.get_xlabel() == "epoch" for axes in figure.axes)
    styles = {line.get_linestyle() for line in figure.axes[0].lines[:2]}
    assert len(styles) == 2  # readable without colour
    assert len(saved(figure)) > 10_000


@pytest.mark.parametrize("channels", [1, 3])
def test_examples_show_images_classes_and_what_is_wrong(channels):
    images = np.random.default_rng(0).random((2, 3, 8, 8, channels), np.float32)
    figure = plots.examples(
        images,
        ["natural", "hot 2", "blur 1"],
        ["cat", "dog"],
        {"natural": [["cat", "cat", "dog"], ["dog", "cat", "dog"]]},
    )
    assert len(figure.axes) == 6
    shown = figure.axes[4].get_images()[0].get_array()
    np.testing.assert_array_equal(shown, images[1, 1].squeeze())
    texts = [axes.texts[0].get_text() for axes in figure.axes]
    assert texts[:3] == ["natural: cat ✓", "natural: cat ✓", "natural: dog ✗"]
    assert figure.axes[3].get_ylabel() == "true: dog"
    assert len(saved(figure)) > 5_000
