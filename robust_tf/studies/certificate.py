"""One page on a model and the devices that it will run on: accepted or not, and why.

It says what was measured, what was assumed and what was not modelled, in the words of EMVA 1288
and of specifications of defects; it claims conformance to nothing.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

import robust_tf
from robust_tf import results
from robust_tf.data import Data, Split, chunk_size
from robust_tf.evaluation import Evaluator, Natural, measures
from robust_tf.files import digest, file_name, locked, prepare_directory, replacing, writing_to
from robust_tf.models.correction import Correction
from robust_tf.progress import Bar
from robust_tf.results import figures
from robust_tf.results.labelling import training_of
from robust_tf.saved_models import Classifier, matched
from robust_tf.saved_models.exports import content_digest
from robust_tf.sensors import Fleet
from robust_tf.sensors import fleet as fleets
from robust_tf.sensors.correction import without_good_pixel
from robust_tf.studies import ageing, certificate_page, fleet, limits
from robust_tf.studies.plan import Plan
from robust_tf.studies.populations import Listed, Population
from robust_tf.studies.remedies import with_correction

# What of a correction's configuration a certificate says.
_SETTINGS = ("threshold",)
# What of `fleet.summarize` a certificate says of each set of devices.
SUMMARY = (
    "mean_accuracy", "mean_low", "mean_high", "median_accuracy",
    "quantile_accuracy", "quantile_low", "lowest_accuracy",
    "share_below", "share_low", "share_high", "share_bound", "accepted",
)  # fmt: skip


class _Kept:
    """What has been measured, by name; with a file, a command that is stopped loses little of it.

    Args:
        path: the file, which the first part makes; None to keep nothing.
    """

    def __init__(self, path: Path | None):
        """Reads the file, if it is there, not damaged and of the same versions of packages."""
        self._path, self._versions = path, _versions()
        self._parts: dict[str, Any] = {}
        # No file, or none that this has written: all is measured again.
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
            stored = json.loads(path.read_bytes()) if path else {}
            own = stored["versions"] == self._versions and stored["digest"] == _sha256(
                stored["parts"]
            )
            self._parts = stored["parts"] if own else {}

    def part(self, name: str, measured: Callable[[], Any]) -> Any:
        """What is known by that name, or else is measured now."""
        if name not in self._parts:
            self._parts[name] = measured()
            if self._path is not None:
                content = {"versions": self._versions, "digest": _sha256(self._parts)}
                text = json.dumps(content | {"parts": self._parts})
                with (
                    writing_to("output_dir", self._path.parent),
                    replacing(self._path) as temporary,
                ):
                    temporary.write_text(text, encoding="utf-8")
        return self._parts[name]


def _versions() -> dict[str, str]:
    return {
        "robust_tf": robust_tf.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }


def _sha256(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def measure(
    classifier: Classifier,
    data: Data,
    population: Population,
    plan: Plan,
    progress: bool = True,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Measures all that a certificate says of a model's accuracy.

    Args:
        classifier: as of `matched`.
        data: the dataset; its test split is used.
        population: where the devices come from.
        plan: what is measured.
        progress: show a progress bar.
        kept: a file that keeps what is measured, fleet by fleet, for another call with the same
            arguments; None for none.

    Returns:
        accepted; natural, on the test images as they are, and without_defects, on a device that
        has none, each a fraction; devices, a list with each one's defects, description and
        accuracy; fleet, `SUMMARY` of them; other_images, the 95 % intervals of the mean and of
        the quantile's bound for other test images, and whether the accuracy that is asked for
        lies in the latter; and lists of such summaries: ageing (by years, the same devices),
        limits (by kind and level) and remedies (by remedy; those that cannot be are left_out).

    Raises:
        InvalidArgument: if the model, population or plan does not fit the images.
        Unavailable: if the file cannot be written.
    """
    seed, size, known = plan.seed, plan.devices, _Kept(kept)
    new = population.fleet(seed, size)
    # Drawn first: an age at which there are too many defects is seen before the work.
    ages = {age: population.fleet(seed, size, age) for age in plan.years if population.ages}
    tester = fleet.ClassifierTester(classifier, data, progress)
    evaluator = Evaluator(classifier, data.test, seed)
    natural = known.part("natural", lambda: evaluator.accuracy(Natural()))

    def as_it_is() -> dict[str, Any]:
        answers = tester.answers(new)
        columns = ["device", "defects", "description", "accuracy"]
        return {
            "without_defects": answers.natural_accuracy,
            "fleet": _summary(answers, new, plan),
            "devices": answers.devices(new)[columns].to_dict("records"),
        }

    def at_age(years: float) -> dict[str, Any]:
        ((found, _),) = ageing.measure(tester, {years: ages[years]}, plan.asked)
        return {"years": found["years"], "defects": found["defects"], **_of(found)}

    def corrected(layer: Correction) -> dict[str, Any]:
        model = with_correction(classifier, layer)
        answers = fleet.ClassifierTester(model, data, progress).answers(new)
        found = _summary(answers, new, plan)
        return {"remedy": str(layer), "without_defects": answers.natural_accuracy, **found}

    def listed() -> dict[str, Any]:
        devices = new.conditions(data.image_shape)
        bar = Bar(devices, desc="testing with lists", disable=not progress)
        accuracies = np.array([evaluator.accuracy(Listed(one)) for one in bar])
        found = _of(fleets.summarize(accuracies, clean, len(data.test), plan.asked))
        return {"remedy": _LISTS, "without_defects": clean, **found}

    def with_number(kind: str, level: int) -> dict[str, Any]:
        drawn = population.with_number(kind, level, seed, size)
        return {"kind": kind, "level": level, **_summary(tester.answers(drawn), drawn, plan)}

    first = known.part("new", as_it_is)
    own, clean = first["fleet"], first["without_defects"]
    aged = [{"years": 0.0, "defects": _mean_defects(new), **own}]
    aged += [known.part(f"{age!r} years", functools.partial(at_age, age)) for age in ages]
    remedies = [{"remedy": "as it is", "without_defects": clean, **own}]
    for layer in plan.corrections:
        config = {**layer.get_config(), "name": ""}
        remedies.append(known.part(f"{layer} {config}", functools.partial(corrected, layer)))
    left_out = []
    if population.listed:
        masks = (one.mask(data.image_shape) for one in new.maps.values())
        if any(map(without_good_pixel, masks)):
            left_out.append(f"{_LISTS}: some device has a channel without a good pixel")
        else:
            remedies.append(known.part("lists", listed))
    tried: list[dict[str, Any]] = []

    def holds(kind: str, level: int) -> bool:
        tried.append(known.part(f"{kind} {level}", functools.partial(with_number, kind, level)))
        return tried[-1]["accepted"]

    most = {kind: min(plan.limit_most, population.most(kind)) for kind in plan.limit_kinds}
    largest: dict[str, int | None] = dict.fromkeys(plan.limit_kinds)
    if not fleets.is_below(np.array(clean), plan.asked.accept or 0, len(data.test)):
        for kind in plan.limit_kinds:
            largest[kind] = limits.largest(functools.partial(holds, kind), most[kind])
    return {
        "accepted": own["accepted"],
        "natural": natural,
        "without_defects": clean,
        "fleet": own,
        "other_images": _of_other_images(own, len(data.test), plan),
        "devices": first["devices"],
        "ageing": aged,
        "remedies": remedies,
        "remedies_left_out": left_out,
        "limits": {
            "of": population.unit,
            "largest": largest,
            "most_tried": most,
            "tried": tried,
            "notes": certificate_page.on_limits(population),
        },
    }


_LISTS = "median list of each device"


def _of_other_images(own: dict[str, Any], examples: int, plan: Plan) -> dict[str, Any]:
    """Intervals for other test images, and whether these might decide otherwise."""
    mean, low = (
        [*map(float, measures.interval(own[name], examples))]
        for name in ("mean_accuracy", "quantile_low")
    )
    accept = plan.asked.accept or 0.0
    return {"mean": mean, "quantile_low": low, "in_doubt": low[0] < accept <= low[1]}


def _summary(answers: fleet.Answers, of: Fleet, plan: Plan) -> dict[str, Any]:
    return _of(fleet.summary_of(answers, of, plan.asked))


def _of(summary: dict[str, Any]) -> dict[str, Any]:
    """The part of a summary that a certificate says; NaN is null in JSON."""
    return {name: _plain(summary[name]) for name in SUMMARY}


def _mean_defects(of: Fleet) -> float:
    return float(np.mean([one.pixels for one in of.maps.values()]))


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def write(
    classifier: Classifier,
    data: Data,
    population: Population,
    plan: Plan,
    output_dir: str | os.PathLike,
    progress: bool = True,
) -> tuple[Path, dict[str, Any]]:
    """Measures and writes a certificate.

    Args:
        classifier: from `classifiers.load`.
        data: the dataset; its test split is used.
        population: where the devices come from.
        plan: what is measured.
        output_dir: where a folder for the results is made.
        progress: show a progress bar.

    Returns:
        The folder, with `certificate.html` (a file of its own, which holds its figure),
        `certificate.md`, `certificate.json`, `figures/fleet.png` and `measured.json`, from which
        the same call goes on after it was stopped; and what the JSON has.

    Raises:
        InvalidArgument: as `measure`.
        Unavailable: if the folder cannot be written.
    """
    classifier = matched(classifier, data)
    new = population.fleet(plan.seed, 1)
    new.without(data.image_shape).check(data.image_shape)
    corrections = [
        (type(one).__name__, one.get_config() | {"name": ""}) for one in plan.corrections
    ]
    asked = (population, corrections, dataclasses.replace(plan, corrections=()))
    identity = digest(fleet.identity_of(classifier, data), asked)
    name = file_name(f"{classifier.name} certificate {population.name} {identity}")
    folder = Path(output_dir) / name
    with locked(prepare_directory("output_dir", folder)):
        found = {
            "accepted": None,
            "model": {
                "name": classifier.name,
                "digest": _digest_of_model(classifier),
                "training": training_of(classifier),
                "image_shape": list(data.image_shape),
            },
            "test_images": {
                "dataset": data.name,
                "data_source": data.source,
                "n_examples": len(data.test),
                "digest": _digest_of_images(data.test),
                "digest_of_whole_split": data.test.digest,
            },
            "population": certificate_page.description_of(population),
            "asked": dataclasses.asdict(plan.asked),
            "drawn_devices": plan.devices,
            "seed": plan.seed,
            "corrections": {
                str(one): {k: v for k, v in one.get_config().items() if k in _SETTINGS}
                for one in plan.corrections
            },
            "versions": _versions(),
            **measure(classifier, data, population, plan, progress, folder / "measured.json"),
            "assumed": certificate_page.assumed(population),
            "not_modelled": certificate_page.not_modelled(population),
        }
        figures.save({"fleet": _figure(found, plan)}, folder / "figures")
        title, sections = certificate_page.sections(found, folder / "figures" / "fleet.png")
        texts = {
            "html": results.pages.page(title, sections),
            "md": results.pages.markdown(title, sections, folder),
            "json": json.dumps(found, indent=2, ensure_ascii=False) + "\n",
        }
        with writing_to("output_dir", output_dir):
            for ending, text in texts.items():
                with replacing(folder / f"certificate.{ending}") as temporary:
                    temporary.write_text(text, encoding="utf-8")
    return folder, found


def _digest_of_model(classifier: Classifier) -> str:
    """Of a SavedModel's content all 64 characters, where its fingerprint has 8."""
    folder = classifier.path
    return content_digest(folder) if folder.is_dir() else classifier.fingerprint


def _digest_of_images(split: Split) -> str:
    """The SHA-256 of the images and labels that are tested: of the first ones, if not of all."""
    content = hashlib.sha256(repr((len(split), split.image_shape, split.divisor)).encode())
    size = chunk_size(split.image_shape)
    for first in range(0, len(split), size):
        index = np.arange(first, min(first + size, len(split)))
        content.update(split.bytes_at(index).numpy().tobytes())
    content.update(split.labels.numpy().tobytes())
    return f"sha256:{content.hexdigest()}"


def _figure(found: dict[str, Any], plan: Plan):
    """The distribution over the devices, as of `fleet.figure`."""
    named = {"model": found["model"]["name"], "fleet": found["population"]["name"]}
    devices = pd.DataFrame(found["devices"]).assign(**named)
    summary = {
        **named,
        "training": found["model"]["training"],
        "natural_accuracy": found["without_defects"],
        "devices": plan.devices,
        **dataclasses.asdict(plan.asked),
        **found["fleet"],
    }
    return fleet.figure(devices, pd.DataFrame([summary]))
