import base64
import io

import matplotlib.figure
import numpy as np
import pandas as pd
import PIL.Image
import pytest

from robust_tf.evaluation import examples
from robust_tf.paper import figures as paper_figures
from robust_tf.paper import numbers
from robust_tf.results import figures
from tests.test_results import trials


def saved(figure: matplotlib.figure.Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_accuracy_shows_means_and_deviations():
    table = pd.concat([trials(), trials("b", "constant", "hot", 6, 0.01)], ignore_index=True)
    figure = figures.accuracy(table)
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


def test_runs_of_one_training_have_bars_of_their_own():
    table = pd.concat([trials("x-a"), trials("x-b", shift=0.01)], ignore_index=True)
    runs = pd.DataFrame({"run": ["x-a", "x-b"], "standardize": ["pixel", "none"]})
    (axes,) = figures.accuracy(table, runs).axes
    heights = [[bar.get_height() for bar in container] for container in axes.containers]
    np.testing.assert_allclose(heights, [[95, 77, 51], [96, 78, 52]], atol=1e-9)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["natural, standardize pixel", "natural, standardize none"]


def test_training_curves_show_the_history():
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "accuracy": [0.5, 0.7, 0.8],
            "loss": [2.0, 1.0, 0.5],
            "perturbed_fraction": [0.05, 0.5, 0.95],
        }
    )
    runs = {"a": "natural", "b": "incremental hot 2"}
    table = pd.concat([history.assign(run=run) for run in runs], ignore_index=True)
    figure = figures.training(table, runs)
    lines = [axes.lines[0].get_ydata() for axes in figure.axes]
    np.testing.assert_allclose(lines[0], [50, 70, 80])
    np.testing.assert_allclose(lines[1], [2.0, 1.0, 0.5])
    np.testing.assert_allclose(lines[2], [5, 50, 95])
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == list(runs.values())
    assert all(axes.get_xlabel() == "epoch" for axes in figure.axes)
    styles = {line.get_linestyle() for line in figure.axes[0].lines[:2]}
    assert len(styles) == 2  # readable without colour
    assert len(saved(figure)) > 10_000


@pytest.mark.parametrize(
    ("fractions", "panels"),
    [
        ({"a": [0, 0, 0]}, 2),
        ({"a": [1, 1, 1]}, 2),
        ({"a": [0, 0, 0], "b": [1, 1, 1]}, 2),
        ({"a": [0.5, 0.5, 0.5]}, 2),
        ({"a": [0, 0, 0], "b": [0, 0.5, 1]}, 3),
        ({"a": [0, 0, 0.1]}, 3),
    ],
)
def test_a_perturbed_fraction_that_stays_has_no_panel(fractions, panels):
    rows = {"epoch": [1, 2, 3], "accuracy": 0.5, "loss": 1.0}
    history = [
        pd.DataFrame({**rows, "run": run, "perturbed_fraction": own})
        for run, own in fractions.items()
    ]
    figure = figures.training(pd.concat(history, ignore_index=True))
    assert len(figure.axes) == panels
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert ("perturbed training images [%]" in labels) == (panels == 3)
    assert figure.axes[0].get_legend() is not None


@pytest.mark.parametrize("channels", [1, 3])
def test_examples_show_images_classes_and_what_is_wrong(channels):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, channels), np.uint8)
    tests = [("none", np.nan), ("hot", 2), ("blur", 1)]
    predicted = [["cat", "cat", "dog"], ["dog", "cat", "dog"]]
    rows = [
        (7 - i, *tests[j], ["cat", "dog"][i], "natural", predicted[i][j], png(images[i, j]))
        for i in range(2)
        for j in range(3)
    ]
    figure = figures.examples(pd.DataFrame(rows, columns=examples.COLUMNS))
    assert len(figure.axes) == 6
    shown = figure.axes[4].get_images()[0].get_array()
    np.testing.assert_array_equal(np.round(shown * 255), images[1, 1].squeeze())
    texts = [axes.texts[0].get_text() for axes in figure.axes]
    assert texts[:3] == ["natural: cat ✓", "natural: cat ✓", "natural: dog ✗"]
    assert figure.axes[3].get_ylabel() == "true: dog"
    assert [axes.get_title() for axes in figure.axes[:3]] == ["natural", "hot 2", "blur 1"]
    assert len(saved(figure)) > 5_000


def png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image.squeeze()).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def test_curves_of_robust_models_show_points_deviations_and_published_ones():
    published = numbers.published_points()
    published = published[published["figure"] == "A.1"]
    mine = published[(published["dataset"] == "mnist")].copy()
    mine["mean"] -= 0.01
    figure = paper_figures.curves(mine, published, {"mnist": 0.97})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"mnist, trained with {kind}" for kind in ("stuck", "dead", "hot")]
    axes = figure.axes[2]
    (hot,) = (bar for bar in axes.containers if bar.get_label() == "hot 2")
    expected = mine[(mine["train_perturb"] == "hot") & (mine["test_perturb"] == "hot")]
    np.testing.assert_allclose(np.float64(hot.lines[0].get_ydata()), 100 * expected["mean"])
    np.testing.assert_allclose(np.float64(hot.lines[0].get_xdata()), range(1, 11))
    (bars,) = hot.lines[2]
    heights = [np.ptp(segment[:, 1]) for segment in bars.get_segments()]
    np.testing.assert_allclose(heights, 200 * expected["std"])
    behind = [line for line in axes.lines if line.get_alpha() == 0.4]
    assert len(behind) == 4
    np.testing.assert_allclose(np.float64(behind[3].get_ydata()), 100 * expected["mean"] + 1)
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend == {"natural", "stuck 2", "dead 2", "hot 2", "natural model", "published"}
    # Readable without colour.
    markers = {bar.lines[0].get_marker() for bar in axes.containers}
    styles = {str(bar.lines[0]._unscaled_dash_pattern) for bar in axes.containers}
    assert len(markers) == len(styles) == 4
    assert "pixels in training images" in axes.get_xlabel()


def test_several_seeds_have_bands():
    published = numbers.published_points()
    mine = published[(published["figure"] == "A.2") & (published["dataset"] == "mnist")]
    reach = 0.01
    mine = mine.assign(low=mine["mean"] - reach, high=mine["mean"] + 2 * reach, n_seeds=3)
    (axes,) = paper_figures.curves(mine).axes
    bands = [band for band in axes.collections if band.get_alpha() == 0.12]
    lines = [bar for bar in axes.containers if bar.get_label() == "noise 0.05"]
    assert len(bands) == len(axes.containers) == 4
    expected = lines[0].lines[0].get_ydata()
    (band,) = (b for b, bar in zip(bands, axes.containers) if bar is lines[0])
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(expected.min() - 100 * reach)
    assert heights.max() == pytest.approx(expected.max() + 200 * reach)
    legend = {text.get_text() for text in axes.figure.legends[0].get_texts()}
    assert "one more seed, 95 %" in legend


def test_curves_of_natural_models_have_a_panel_a_dataset():
    published = numbers.published_points()
    figure = paper_figures.curves(published[published["figure"] == "6"])
    assert [axes.get_title() for axes in figure.axes] == ["mnist", "cifar10"]
    (noise,) = figure.axes[0].containers
    assert noise.lines[0].get_ydata()[-1] == pytest.approx(17.9684)
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend == {"natural", "noise"}
    assert "standard deviation of the noise in test images" in figure.axes[0].get_xlabel()


def test_the_ablation_as_bars():
    table = numbers.published_ablation()
    figure = paper_figures.table_one(table, table)
    (axes,) = figure.axes
    widths = [[bar.get_width() for bar in container] for container in axes.containers]
    np.testing.assert_allclose(widths[0], 100 * table["train_accuracy"])
    np.testing.assert_allclose(widths[1], 100 * table["test_accuracy"])
    assert [label.get_text() for label in axes.get_yticklabels()][2] == "dropout, relu"


def test_the_same_figure_makes_the_same_files(tmp_path):
    published = numbers.published_points()
    contents = []
    for name in ("a", "b"):
        folder = tmp_path / name / "figures"
        folder.parent.mkdir()
        figure = paper_figures.curves(published[published["figure"] == "8"])
        figures.save({"figure-8": figure}, folder, ("pdf", "png"))
        contents.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert len(contents[0]) == 2 and contents[0] == contents[1]
