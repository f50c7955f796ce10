"""What a certificate says: its sections, what is assumed and what is not modelled, as texts.

Nothing is measured here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from robust_tf import results
from robust_tf.evaluation import measures
from robust_tf.results.pages import Section
from robust_tf.sensors import Sensor
from robust_tf.studies.populations import OfKind, OfSensor, Population

_PERCENT = results.in_percent
# Parameters of EMVA 1288, by the field of `Noise`: their name there, and unit.
_EMVA = {
    "K": ("Overall system gain K", "DN/e⁻"),
    "full_well": ("Saturation capacity μe.sat", "e⁻"),
    "sigma_d": ("Temporal dark noise σd", "e⁻"),
    "dark_current": ("Dark current μI", "e⁻/s"),
    "exposure": ("Exposure time texp", "s"),
    "DSNU_1288": ("Dark signal nonuniformity DSNU₁₂₈₈", "e⁻"),
    "PRNU_1288": ("Photo response nonuniformity PRNU₁₂₈₈", "%"),
    "black_level": ("Black level", "DN"),
    "white": ("Signal where the scene is white", "e⁻"),
}
# Parameters of laws of growth, by the field of `Growth`.
_GROWTH = {
    "per_year": "new defects per year",
    "coefficient": "coefficient of growth [1/(a mm²)]",
    "pixel_um": "pitch of photosites [µm]",
    "pixel_exponent": "exponent of the pitch",
    "iso": "ISO speed",
    "iso_exponent": "exponent of the ISO speed",
}
_SHAPES = {"pixel": "single pixels", "cluster": "clusters", "row": "rows", "column": "columns"}


def description_of(population: Population) -> dict[str, Any]:
    """What a population is, as JSON has it."""
    found: dict[str, Any] = {"name": population.name}
    if isinstance(population, OfSensor):
        sensor, growth = population.sensor, population.sensor.growth
        return found | {
            "digest": sensor.digest,
            "sensor": dataclasses.asdict(sensor),
            "read": dataclasses.asdict(sensor.region),
            "seen": dataclasses.asdict(sensor.window),
            "white": sensor.noise and sensor.noise.at_white(sensor.bits),
            "new_defects_per_year": growth and growth.rate(sensor.height * sensor.width),
            "defects": _defects(sensor),
        }
    assert isinstance(population, OfKind)
    return found | {"image_shape": list(population.image_shape)}


def _defects(sensor: Sensor) -> list[dict[str, Any]]:
    """A row for each source of defects of new devices."""
    rows = []
    for source in sensor.sources():
        if source.argument == "years":
            continue
        whole = (source.region.height, source.region.width) == (sensor.height, sensor.width)
        rows.append(
            {
                "defects": _SHAPES[source.shape],
                "they show": source.shows,
                "offset": source.offset and list(source.offset),
                "expected per device": source.mean,
                "zone": "whole sensor" if whole else _zone(dataclasses.asdict(source.region)),
                "sizes": list(source.sizes),
                "shares": [one / sum(source.shares) for one in source.shares if source.sizes],
            }
        )
    return rows


def _zone(own: Mapping[str, int]) -> str:
    last = own["top"] + own["height"] - 1, own["left"] + own["width"] - 1
    return f"rows {own['top']} to {last[0]}, columns {own['left']} to {last[1]}"


def assumed(population: Population) -> list[str]:
    """What a certificate takes for granted."""
    found = [
        "The test images stand for the scenes that the devices will see, and their labels are "
        "right. The bounds are about other devices, not about other images.",
        "The devices are independent, and all defects are those of a device for good: the same in "
        "each of its images.",
    ]
    if isinstance(population, OfKind):
        return [
            *found,
            "Defects are given in pixels of the network's input, all channels of a pixel alike, "
            "and all positions are as likely.",
        ]
    assert isinstance(population, OfSensor)
    sensor = population.sensor
    found += [
        "The number of defects of each kind has a Poisson distribution with the mean that the "
        "sensor's file says; within a zone all positions are as likely.",
        "A test image is the scene: it is enlarged to the sensor where this is larger, and then "
        "has no more detail than before.",
        "The accuracy without defects is that of device 0 if it had none; it keeps its own DSNU "
        "and PRNU, and has noise.",
    ]
    if sensor.noise is not None:
        found.append(
            "Noise follows the linear model of EMVA 1288 with the parameters above: Poisson "
            "shot noise, normal temporal dark noise, and normal DSNU and PRNU without structure."
        )
    if sensor.growth is not None:
        found.append(
            "New defects appear at a constant rate and stay; the rate is from: "
            f"{sensor.growth.source}"
        )
    return found


def not_modelled(population: Population) -> list[str]:
    """What devices have that was left out."""
    found = [
        "Pixels that blink (random telegraph signal), are nonlinear, or change with temperature, "
        "gain or exposure time.",
        "Charge that spills into neighbours, crosstalk, smear, and interlaced or rolling readout.",
        "The lens: its blur, shading, dust and flare; motion and focus.",
        "White balance, gamma, sharpening, compression and whatever else a camera computes.",
        "Defects of real devices: the maps are drawn, none is measured.",
    ]
    if isinstance(population, OfKind):
        return [
            "The sensor itself: noise, colour filter, binning, and that a defect of a larger "
            "sensor is weaker in the network's input.",
            *found,
        ]
    assert isinstance(population, OfSensor)
    if population.sensor.noise is None:
        found.insert(0, "Noise: the sensor's file has none.")
    if population.sensor.growth is None:
        found.insert(0, "Ageing: the sensor's file has no law of growth.")
    return [*found, "Correction of listed defects on the sensor, before colours are filled in."]


def on_limits(population: Population) -> list[str]:
    """What a largest number of defects is, and what it is not."""
    if isinstance(population, OfSensor):
        own = (
            "Defects are photosites of the sensor. The devices have just so many of one kind, the "
            "sensor's noise, and none of the defects that its file names."
        )
    else:
        own = (
            "Defects are pixels of the network's input. The devices have just so many of one kind "
            "and no others."
        )
    return [
        own,
        "Each number that was tried is a test of its own with 95 % confidence; the limit, which is "
        "found by several, has no confidence of its own. Accuracy need not fall with every "
        "defect: the next number is not accepted, and whether a larger one would be again was not "
        "looked for.",
    ]


def doubt(found: Mapping[str, Any]) -> str:
    """What other test images may change in the verdict; "" if they hardly can."""
    if not found["other_images"]["in_doubt"]:
        return ""
    images, accept = _images(found), f"{100 * found['asked']['accept']:g} %"
    low = _PERCENT(found["fleet"]["quantile_low"], *found["other_images"]["quantile_low"])
    return (
        f"Other test images may decide otherwise: {images} are too few for this verdict. The "
        f"{_share(found)} quantile of all devices is at least {low} %, where brackets hold the "
        f"95 % interval for other test images; the {accept} that are asked for lie within it."
    )


def _images(found: Mapping[str, Any]) -> str:
    return results.counted(found["test_images"]["n_examples"], "test image")


def _share(found: Mapping[str, Any]) -> str:
    return f"{100 * found['asked']['accept_share']:g} %"


def sections(found: Mapping[str, Any], figure: Path) -> tuple[str, list[Section]]:
    """The page of a certificate.

    Args:
        found: what `certificate.write` puts into the JSON.
        figure: the PNG with the distribution over the devices.

    Returns:
        Its title, and its parts.
    """
    accept, own = f"{100 * found['asked']['accept']:g} %", found["fleet"]
    verdict = "Accepted" if found["accepted"] else "Not accepted"
    notes = (
        f"{verdict}: at most {_share(found)} of devices may be below {accept} accuracy. Of "
        f"{found['drawn_devices']:,} devices drawn, each with the same {_images(found)}, "
        f"{_PERCENT(own['share_below'])} % are, and with 95 % confidence at most "
        f"{_PERCENT(own['share_bound'])} % of all such devices are below.",
        "This page reports a simulation. It uses the words of EMVA 1288 and of specifications of "
        "defects, and claims conformance to no standard.",
    )
    unsure = doubt(found)
    page = [
        Section(notes=notes, warning=not found["accepted"]),
        *([Section(notes=(unsure,), warning=True)] if unsure else []),
        Section("Model", table=_pairs(_model(found))),
        *of_population(found["population"]),
        Section(
            "Fleet",
            (
                "Accuracy in percent. Brackets hold 95 % intervals: for other devices, or for "
                "other test images where that is said. Bounds hold for whatever distribution of "
                "devices, with 95 % confidence.",
            ),
            _pairs(_fleet(found)),
            figure,
            f"Share of the {found['drawn_devices']:,} devices that have at most an accuracy; the "
            "dotted line is without defects, the dot the quantile, the black line what is asked "
            "for",
        ),
        _limits(found),
        Section("Remedies", _on_remedies(found), _table(found, found["remedies"], "remedy")),
        _ageing(found),
        Section("What was assumed", tuple(found["assumed"])),
        Section("What was not modelled", tuple(found["not_modelled"])),
        Section("Versions and seeds", table=_pairs({**found["versions"], "seed": found["seed"]})),
    ]
    return f"{verdict}: {found['model']['name']} on devices of {found['population']['name']}", page


def _on_remedies(found: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [
        "The same devices with a correction of defective pixels in front of the model. The first "
        "row is the model as it is, which the verdict above is about. Brackets without defects are "
        "for other test images, all others for other devices."
    ]
    for name, settings in found["corrections"].items():
        if (threshold := settings.get("threshold")) is not None:
            notes.append(
                f"{name}: a pixel becomes the median of its 8 neighbours if it differs from it by "
                f"more than the threshold, {threshold:g} of the range from black to white."
            )
    return (*notes, *(f"Left out: {one}." for one in found["remedies_left_out"]))


def _model(found: Mapping[str, Any]) -> dict[str, str]:
    model, images = found["model"], found["test_images"]
    count = images["n_examples"]
    return {
        "model": model["name"],
        "digest": model["digest"],
        "training": model["training"],
        "input": " × ".join(map(str, model["image_shape"])),
        "test images": f"{count:,} of {images['dataset']} ({images['data_source']})",
        "digest of these images": images["digest"],
        "digest of the whole test split": images["digest_of_whole_split"],
        "accuracy on them, in percent [95 % interval]": _of_images(found["natural"], count),
    }


def of_population(population: Mapping[str, Any]) -> list[Section]:
    """The parts on where the devices come from, as of `description_of`."""
    sensor = population.get("sensor")
    if sensor is None:
        shape = " × ".join(map(str, population["image_shape"]))
        return [Section("Devices", (f"{population['name']} in images of {shape}.",))]
    way, noise = sensor["input"], sensor["noise"]
    pairs = {
        "sensor": population["name"],
        "digest": population["digest"],
        "photosites": f"{sensor['height']:,} × {sensor['width']:,}",
        "photosites that are read": _zone(population["read"]),
        "photosites that the network sees": _zone(population["seen"]),
        "colour filter": sensor["filter"],
        "resolution": f"{sensor['bits']} bits",
        "crop, binning": f"{way['crop']}, {way['binning']} × {way['binning']}",
    }
    if sensor["filter"] != "mono":
        pairs["demosaicing"] = way["demosaic"]
    if noise:
        given = noise | {"white": population["white"]}
        pairs |= {f"{name} [{unit}]": f"{given[key]:g}" for key, (name, unit) in _EMVA.items()}
    if growth := sensor["growth"]:
        pairs["new defects per device and year"] = f"{population['new_defects_per_year']:.4g}"
        pairs["they show"] = _shown(growth["shows"], growth["offset"])
        pairs["law of growth, and where it is from"] = f"{growth['law']}: {growth['source']}"
        pairs |= {
            name: f"{growth[key]:g}" for key, name in _GROWTH.items() if growth[key] is not None
        }
        if growth["per_year"] is not None:
            pairs["that is per"] = growth["per"]
    rows = [
        {
            "defects": row["defects"],
            "they show": _shown(row["they show"], row["offset"]),
            "expected per device": f"{row['expected per device']:.4g}",
            "zone": row["zone"],
            "sizes": ", ".join(
                f"{size} ({100 * share:.3g} %)" for size, share in zip(row["sizes"], row["shares"])
            ),
        }
        for row in population["defects"]
    ]
    defects = pd.DataFrame(rows)
    none = () if rows else ("The sensor's file names none.",)
    return [Section("Sensor", table=_pairs(pairs)), Section("Defects", none, defects)]


def _shown(shows: str, offset: Sequence[float] | None) -> str:
    """What photosites show: "warm, 0.1 to 0.3 of the range added"."""
    if offset is None:
        return shows
    low, high = offset
    added = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return f"{shows}, {added} of the range added"


def _fleet(found: Mapping[str, Any]) -> dict[str, str]:
    own, share, others = found["fleet"], _share(found), found["other_images"]
    examples = found["test_images"]["n_examples"]
    worst = min(found["devices"], key=lambda one: one["accuracy"])
    accept = f"{100 * found['asked']['accept']:g} %"
    below = _PERCENT(own["share_below"], own["share_low"], own["share_high"])
    without = "without defects" + ", as device 0" * ("sensor" in found["population"])
    for_images = "for other test images"
    return {
        "devices": f"{found['drawn_devices']:,}",
        without: f"{_of_images(found['without_defects'], examples)} {for_images}",
        "mean": f"{_mean(own)} for other devices, {_interval(*others['mean'])} {for_images}",
        "median": _PERCENT(own["median_accuracy"]),
        f"{share} quantile": _PERCENT(own["quantile_accuracy"]),
        f"{share} quantile of all devices, at least": f"{_PERCENT(own['quantile_low'])} "
        f"{_interval(*others['quantile_low'])} {for_images}",
        "lowest": f"{_PERCENT(worst['accuracy'])}, device {worst['device']}: "
        f"{worst['description'] or 'no defects'}",
        f"devices below {accept}": f"{below} %; the interval is for other devices",
        f"all devices below {accept}, at most": f"{_PERCENT(own['share_bound'])} %",
    }


def _limits(found: Mapping[str, Any]) -> Section:
    limits, unit = found["limits"], found["limits"]["of"]
    notes = []
    for kind, largest in limits["largest"].items():
        if largest is None:
            text = "none: the accuracy is too low without any"
        elif largest == limits["most_tried"][kind]:
            text = f"{largest}, the most that was to be tried"
        else:
            text = f"{largest}"
        notes.append(f"{kind}: up to how many {unit} per device the fleet is accepted: {text}.")
    if notes:
        notes += limits["notes"]
    defects = f"{unit} per device"
    tried = [{**row, defects: f"{row['kind']} {row['level']}"} for row in limits["tried"]]
    tried.sort(key=lambda row: (row["kind"], row["level"]))
    notes = notes or ["Not looked for."]
    return Section("Largest number of defects", tuple(notes), _table(found, tried, defects))


def _ageing(found: Mapping[str, Any]) -> Section:
    rows, defects = found["ageing"], "defects per device, mean"
    if len(rows) == 1:
        return Section("Ageing", ("New devices only: no growth of defects was given.",))
    shown = [
        {**row, "years": f"{row['years']:g}", defects: f"{row['defects']:.4g}"} for row in rows
    ]
    note = "The same devices, which keep their defects and get more. The verdict is about new ones."
    return Section("Ageing", (note,), _table(found, shown, "years", defects))


def _table(found: Mapping[str, Any], rows: Sequence[Mapping], *first: str) -> pd.DataFrame:
    """Summaries of devices, to read; accuracies and shares in percent."""
    share, accept = _share(found), f"{100 * found['asked']['accept']:g} %"
    shown = []
    for row in rows:
        own = {name: row[name] for name in first}
        if "without_defects" in row:
            examples = found["test_images"]["n_examples"]
            own["without defects [%]"] = _of_images(row["without_defects"], examples)
        own |= {
            "mean [%]": _mean(row),
            f"{share} quantile [%]": _PERCENT(row["quantile_accuracy"]),
            f"{share} quantile of all devices, at least [%]": _PERCENT(row["quantile_low"]),
            "lowest [%]": _PERCENT(row["lowest_accuracy"]),
            f"devices below {accept} [%]": _PERCENT(
                row["share_below"], row["share_low"], row["share_high"]
            ),
            "accepted": "yes" if row["accepted"] else "no",
        }
        shown.append(own)
    return pd.DataFrame(shown)


def _of_images(accuracy: float, examples: int) -> str:
    """An accuracy with its interval for other test images."""
    return _PERCENT(accuracy, *map(float, measures.interval(accuracy, examples)))


def _mean(row: Mapping[str, Any]) -> str:
    """The mean over devices with its interval for other devices."""
    return _PERCENT(row["mean_accuracy"], row["mean_low"], row["mean_high"])


def _interval(low: float, high: float) -> str:
    return f"[{_PERCENT(low)}, {_PERCENT(high)}]"


def _pairs(pairs: Mapping[str, Any]) -> pd.DataFrame:
    """Two columns of texts."""
    return pd.DataFrame({"what": list(pairs), "value": [str(one) for one in pairs.values()]})
