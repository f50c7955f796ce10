"""The certificate: each number by hand, the page whatever the names, the exit codes."""

import dataclasses
import json
import re

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf

from robust_tf import saved_models
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Evaluator
from robust_tf.models.correction import MedianFilter
from robust_tf.perturbations import Perturbation
from robust_tf.sensors import DefectMap, Defects, Device, Growth, Input, Noise, Region, Sensor
from robust_tf.sensors.correction import GoodNeighbours, by_list
from robust_tf.sensors.fleet import Asked
from robust_tf.studies import certificate, certificate_page, fleet
from robust_tf.studies.populations import Listed, OfKind, OfSensor
from tests.helpers import check_one_line, linear_classifier, outcome

SHAPE = (28, 28, 1)
PLAN = certificate.Plan(
    asked=Asked(0.5, 0.5), devices=6, years=(8.0,), limit_most=9, corrections=(MedianFilter(),)
)
SENSOR = Sensor(
    height=28,
    width=28,
    kinds=(Defects(name="hot", expected=4.0), Defects(name="row", expected=0.3, shows="dead")),
    growth=Growth(law="linear", source="an <assumption>", per_year=3.0),
    name="made & <up>",
)
TOML = """
[sensor]
height = 28
width = 28
[defects.dead]
expected = 2
"""


@pytest.fixture(scope="module")
def model(small):
    return linear_classifier(small, "<b>model<i> & co.keras", 200)


def by_hand(model, small, maps, change=lambda images: images) -> list[float]:
    """Accuracies on devices, image by image."""
    found = []
    for own in maps:
        images = small.test.images_at(tf.range(100)).numpy()
        for row, column, value in zip(own.rows, own.columns, own.values):
            images[:, row, column] = value
        right = np.argmax(model(tf.constant(change(images))), axis=1) == small.test.labels
        found.append(float(np.mean(right)))
    return found


def median(images: np.ndarray) -> np.ndarray:
    return scipy.ndimage.median_filter(images, (1, 3, 3, 1), mode="reflect")


def test_devices_with_defective_pixels(model, small):
    population = OfKind(Perturbation("hot", 20), SHAPE)
    found = certificate.measure(model, small, population, PLAN, progress=False)
    maps = DefectMap.drawn_all(Perturbation("hot", 20), SHAPE, 0, range(6))
    accuracies = by_hand(model, small, maps)
    assert len(set(accuracies)) > 2
    assert [one["accuracy"] for one in found["devices"]] == accuracies
    assert [found["natural"]] == by_hand(model, small, [DefectMap([], [])])
    assert found["natural"] == found["without_defects"]
    own = found["fleet"]
    assert own["mean_accuracy"] == pytest.approx(np.mean(accuracies))
    spread = scipy.stats.t(5, np.mean(accuracies), scipy.stats.sem(accuracies)).interval(0.95)
    assert (own["mean_low"], own["mean_high"]) == pytest.approx(spread)
    assert own["lowest_accuracy"] == min(accuracies)
    below = sum(one < 0.5 for one in accuracies)
    ends = scipy.stats.binomtest(below, 6).proportion_ci(0.95, "exact")
    assert (own["share_low"], own["share_high"]) == pytest.approx(tuple(ends))
    one_sided = scipy.stats.binomtest(below, 6, alternative="less").proportion_ci(0.95, "exact")
    assert own["share_bound"] == pytest.approx(one_sided.high)
    assert own["accepted"] == found["accepted"] == (own["share_bound"] <= 0.5)
    others = found["other_images"]
    for name, accuracy in (("mean", np.mean(accuracies)), ("quantile_low", own["quantile_low"])):
        # The ends of Wilson's interval are the accuracies that are 1.96 errors away.
        for end in others[name]:
            assert (accuracy - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 100)
        assert others[name][0] < accuracy < others[name][1]
    assert others["in_doubt"] == (others["quantile_low"][0] < 0.5 <= others["quantile_low"][1])
    as_it_is, filtered, listed = found["remedies"]
    assert {**own, "remedy": "as it is", "without_defects": found["natural"]} == as_it_is
    assert filtered["mean_accuracy"] == pytest.approx(np.mean(by_hand(model, small, maps, median)))
    tables = [GoodNeighbours.of(one.mask(SHAPE)) for one in maps]
    corrected = [
        by_hand(model, small, [one], lambda images, good=good: by_list(images, good))
        for one, good in zip(maps, tables)
    ]
    assert listed["mean_accuracy"] == pytest.approx(np.mean(corrected))
    assert listed["mean_accuracy"] > own["mean_accuracy"]
    assert len(found["ageing"]) == 1
    # No limit is looked for where even without defects the accuracy is too low.
    strict = dataclasses.replace(PLAN, asked=Asked(1.0, 0.5), corrections=(), devices=5)
    refused = certificate.measure(model, small, population, strict, progress=False)
    assert not refused["accepted"]
    assert (refused["limits"]["largest"], refused["limits"]["tried"]) == ({"hot": None}, [])


def test_numbers_that_there_are_not_are_not_asked_for(model, small):
    """Limits end with the last pixel; where all are defective, no list corrects them."""
    plan = dataclasses.replace(
        PLAN,
        asked=Asked(0.01, 0.5),
        devices=5,
        limit_kinds=("dead",),
        limit_most=2000,
        corrections=(),
    )
    few = dataclasses.replace(small, test=small.test.first(40))
    population = OfKind(Perturbation("hot", 784), SHAPE)
    found = certificate.measure(model, few, population, plan, progress=False)
    assert found["limits"]["largest"] == found["limits"]["most_tried"] == {"dead": 784}
    assert [one["remedy"] for one in found["remedies"]] == ["as it is"]
    (left_out,) = found["remedies_left_out"]
    assert left_out.endswith("some device has a channel without a good pixel")


def test_devices_of_a_sensor_and_their_age(model, small):
    found = certificate.measure(model, small, OfSensor(SENSOR), PLAN, progress=False)
    new, old = (SENSOR.defects_of(0, range(6), years) for years in (0.0, 8.0))
    for maps, row in zip((new, old), found["ageing"]):
        assert row["defects"] == pytest.approx(np.mean([len(one) for one in maps]))
        assert row["mean_accuracy"] == pytest.approx(np.mean(by_hand(model, small, maps)))
    assert [row["years"] for row in found["ageing"]] == [0.0, 8.0]
    assert found["ageing"][1]["defects"] > found["ageing"][0]["defects"] + 10
    assert [one["remedy"] for one in found["remedies"]] == ["as it is", "median"]
    # The limit: accepted there, not beyond, with just so many hot pixels on the sensor.
    limit, tried = found["limits"]["largest"]["hot"], found["limits"]["tried"]
    accepted = {row["level"]: row["accepted"] for row in tried}
    assert 0 < limit < 9 and accepted[limit] and not accepted[limit + 1]
    for row in tried:
        perturbation = Perturbation("hot", row["level"])
        maps = DefectMap.drawn_all(perturbation, (28, 28, 1), 0, range(6))
        assert row["mean_accuracy"] == pytest.approx(np.mean(by_hand(model, small, maps)))


def test_the_page_says_it_whatever_the_names(model, small, tmp_path, monkeypatch):
    asked = (model, small, OfSensor(SENSOR), PLAN, tmp_path, False)
    tested, most = [], 3
    answers = fleet.Tester.answers

    def counted(tester, devices, label=None):
        if len(tested) == most:
            raise KeyboardInterrupt
        tested.append(devices.name)
        return answers(tester, devices, label)

    monkeypatch.setattr(fleet.Tester, "answers", counted)
    with pytest.raises(KeyboardInterrupt):
        certificate.write(*asked)
    (folder,) = tmp_path.iterdir()
    assert [one.name for one in folder.iterdir()] == ["measured.json"]
    # New, 8 years old, with the median and, of the limit, each number: each is tested once.
    most = 100
    _, found = certificate.write(*asked)
    assert len(tested) == 3 + len(found["limits"]["tried"])
    assert certificate.write(*asked) == (folder, found)
    assert len(tested) == 3 + len(found["limits"]["tried"])
    # What was damaged counts for nothing: all is measured again, at once, and is the same.
    text = (folder / "measured.json").read_text()
    (folder / "measured.json").write_text(text.replace('"accepted": true', '"accepted": false'))
    tested.clear()
    assert certificate.write(*asked) == (folder, found)
    assert len(tested) == 3 + len(found["limits"]["tried"])
    stored = json.loads((folder / "certificate.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(found)) and stored["accepted"]
    assert stored["population"]["digest"] == SENSOR.digest
    assert stored["versions"]["tensorflow"] == tf.__version__ and stored["seed"] == 0
    html = (folder / "certificate.html").read_text(encoding="utf-8")
    text = (folder / "certificate.md").read_text(encoding="utf-8")
    assert "<h1>Accepted: &lt;b&gt;model&lt;i&gt; &amp; co.keras on devices of made &amp; " in html
    assert "<b>" not in html and "an &lt;assumption&gt;" in html
    assert 'src="data:image/png;base64,' in html and "http" not in html
    assert "\\<b\\>model" in text and "<b>" not in text
    low, high = found["fleet"]["share_low"], found["fleet"]["share_high"]
    for page in (html, text.replace("\\", "")):
        assert f"[{100 * low:.2f}, {100 * high:.2f}]" in page
        assert "claims conformance to no standard" in page
        assert f"the fleet is accepted: {found['limits']['largest']['hot']}." in page
        assert "none of the defects that its file names" in page
        assert "with the same 100 test images" in page and "without defects, as device 0" in page
        for accuracy in ("mean", "quantile_low"):
            low, high = found["other_images"][accuracy]
            assert f"[{100 * low:.2f}, {100 * high:.2f}] for other test images" in page
        mean_low, mean_high = found["fleet"]["mean_low"], found["fleet"]["mean_high"]
        assert f"[{100 * mean_low:.2f}, {100 * mean_high:.2f}]" in page
    assert '<table class="pairs">' in html and "](figures/fleet.png)" in text
    # A model that is too bad without any defect, on images that are too few.
    refused = {
        "accepted": False,
        "limits": found["limits"] | {"largest": {"hot": None}, "tried": []},
        "other_images": found["other_images"] | {"in_doubt": True},
    }
    title, sections = certificate_page.sections(found | refused, folder / "figures" / "fleet.png")
    assert title.startswith("Not accepted: ") and sections[0].warning and sections[1].warning
    assert "100 test images are too few for this verdict" in sections[1].notes[0]
    (limits,) = (one for one in sections if one.title == "Largest number of defects")
    assert "none: the accuracy is too low without any" in limits.notes[0]


def test_a_sensor_is_described_by_all_that_decides():
    sensor = Sensor(
        height=40,
        width=60,
        bits=10,
        input=Input(region=Region(top=4, left=8, height=32, width=48)),
        kinds=(
            Defects(name="warm", expected=2, offset=(0.125, 0.25)),
            Defects(name="cluster", expected=1, sizes=(2, 5), shares=(3, 1)),
        ),
        noise=Noise(K=0.5, full_well=5000, black_level=23),
        growth=Growth(
            law="power", source="a paper", coefficient=0.5, pixel_um=2, pixel_exponent=-3,
            iso=400, iso_exponent=0.5,
        ),
    )  # fmt: skip
    found = certificate_page.description_of(OfSensor(sensor))
    own, defects = (one.table for one in certificate_page.of_population(found))
    texts = dict(zip(own["what"], own["value"]))
    assert texts["digest"] == sensor.digest
    assert texts["photosites that are read"] == "rows 4 to 35, columns 8 to 55"
    assert texts["photosites that the network sees"] == "rows 4 to 35, columns 16 to 47"
    assert texts["Signal where the scene is white [e⁻]"] == f"{(1023 - 23) / 0.5:g}"
    # On 40 · 60 photosites of 2 µm.
    rate = 0.5 * 2**-3 * 400**0.5 * 2400 * 0.002**2
    assert texts["new defects per device and year"] == f"{rate:.4g}"
    for name, value in (
        ("coefficient of growth [1/(a mm²)]", "0.5"),
        ("pitch of photosites [µm]", "2"),
        ("exponent of the pitch", "-3"),
        ("ISO speed", "400"),
        ("exponent of the ISO speed", "0.5"),
    ):
        assert texts[name] == value
    assert defects["they show"].tolist() == ["warm, 0.125 to 0.25 of the range added", "hot"]
    assert defects["sizes"].tolist() == ["", "2 (75 %), 5 (25 %)"]
    assert found["white"] == 2000 and found["new_defects_per_year"] == pytest.approx(rate)


def test_lists_of_devices_have_one_graph(small):
    class Counting:
        traces = 0

        def __call__(self, images):
            self.traces += 1
            return tf.reduce_mean(images, axis=(1, 2)) * tf.ones([1, 10])

    counting = Counting()
    evaluator = Evaluator(counting, small.test)
    images, seeds = small.test.images_at(tf.range(3)), tf.zeros([3, 2], tf.int32)
    for count in (5, 6, 8):
        places = 2 + 3 * np.arange(count)
        device = Device(DefectMap(places, places, values=1.0), "front", SHAPE)
        evaluator.accuracy(Listed(device))
        expected = by_list(device(images), GoodNeighbours.of(device.defects.mask(SHAPE)))
        np.testing.assert_array_equal(Listed(device)(images, seeds), expected)
    assert counting.traces == 1
    with pytest.raises(InvalidArgument, match="image_shape: expected"):
        Listed(Device(DefectMap([1], [1], values=1.0)))


def test_exit_codes_of_a_good_and_a_bad_fleet(in_process, exported, tmp_path):
    (tmp_path / "two.toml").write_text(TOML)
    asked = (
        f"--model={exported}",
        f"--sensor={tmp_path / 'two.toml'}",
        *("--data_source=sample", "--devices=5", "--accept_share=0.5", "--threshold=0.9"),
        *("--limit_most=1", "--limit=dead"),
    )
    good = in_process(*asked, "--accept=0.3", "--test_examples=30", pipeline="pipelines.certify")
    assert good.returncode == 0, outcome(good)
    assert "\naccepted\n" in good.stdout and "may decide otherwise" not in good.stdout
    bad = in_process(*asked, "--accept=1", "--test_examples=20", pipeline="pipelines.certify")
    assert bad.returncode == 3, outcome(bad)
    assert "\nnot accepted\n" in bad.stdout and not bad.stderr.startswith("error")
    found = [json.loads(one.read_text()) for one in tmp_path.glob("results/*/certificate.json")]
    assert sorted(one["accepted"] for one in found) == [False, True]
    digests, whole = (
        {one["test_images"][name] for one in found} for name in ("digest", "digest_of_whole_split")
    )
    assert len(digests) == 2 and len(whole) == 1
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", one) for one in digests)
    model = found[0]["model"]["digest"]
    assert len(model) == 64 and saved_models.fingerprint(exported).endswith(f" {model[:8]}")
    for one in found:
        own = one["fleet"]
        assert [row["remedy"] for row in one["remedies"]] == ["as it is", "median", "outlier 0.9"]
        assert (
            f"[{100 * own['share_low']:.2f}, {100 * own['share_high']:.2f}]"
            in (good if one["accepted"] else bad).stdout
        )


def test_what_cannot_be_certified(in_process, exported, model, small, tmp_path):
    (tmp_path / "two.toml").write_text(TOML)
    (tmp_path / "colour.toml").write_text(TOML.replace("[defects", 'filter = "RGGB"\n[defects'))
    sensor, hot = f"--sensor={tmp_path / 'two.toml'}", "--perturb=hot"
    for flags, message in (
        ((), "--accept: expected the accuracy that a device must have"),
        (("--accept=0.9",), "--sensor: expected a sensor's file, or perturb and level"),
        (("--accept=0.9", sensor, hot), "two.toml: expected a sensor's file, or perturb and"),
        (("--accept=0.9", sensor, "--level=3"), "--level=3: expected no value with sensor"),
        (("--accept=0.9", hot, "--devices=58"), "--devices=58: expected at least 59 for any"),
        (("--accept=0.9", hot, "--limit=noise"), "--limit=noise: expected some of"),
        (("--accept=0.9", "--perturb=rain"), "--perturb=rain: expected one of"),
        (("--accept=0.9", hot, "--level=0"), "--level=0: expected a whole number from 1"),
        (("--accept=0.9", hot, "--threshold=2"), "--threshold=2.0: expected a number from 0 to 1"),
    ):
        done = in_process(f"--model={exported}", *flags, pipeline="pipelines.certify")
        check_one_line(done, 2, message)
    gone = in_process(
        f"--model={exported}", "--accept=0.9", "--sensor=gone.toml", pipeline="pipelines.certify"
    )
    check_one_line(gone, 1, "--sensor=gone.toml: it cannot be read")
    colour = OfSensor(Sensor.read(tmp_path / "colour.toml"))
    with pytest.raises(InvalidArgument, match="colour, filter=RGGB: expected filter=mono"):
        certificate.write(model, small, colour, PLAN, tmp_path / "results", progress=False)
    noise = OfKind(Perturbation("noise", 0.1), SHAPE)
    with pytest.raises(InvalidArgument, match="perturb=noise: expected some of"):
        certificate.measure(model, small, noise, PLAN, progress=False)
    assert not (tmp_path / "results").exists()
