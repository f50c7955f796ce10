"""The other libraries themselves: what they call a configuration becomes functions of an image.

Each is imported when it is first asked for; how conditions are made of them is not known here.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import numbers
import os
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from robust_tf.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    import numpy as np

# From an image, uint8 [H, W, 3], and a seed to the perturbed image.
Perturb: TypeAlias = "Callable[[np.ndarray, int], Any]"
# The name in tables, what identifies the configuration, and what perturbs at each level.
Found: TypeAlias = "tuple[str, Any, Mapping[float, Perturb]]"


def _read(library: str, name: str, endings: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """A configuration: the file's name and what it holds."""
    path, full = Path(name).expanduser(), f"{library}:{name}"
    if path.suffix not in endings:
        raise InvalidArgument("eval", full, f"a file that ends in {' or '.join(endings)}")
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else imported("yaml").safe_load(text)
    except OSError as error:
        raise Unavailable("eval", full, f"it cannot be read ({error.strerror})") from error
    except ImportError:
        raise
    except Exception as error:  # json and yaml have errors of their own
        expected = f"a file in the form of {path.suffix[1:]} ({words(error)})"
        raise InvalidArgument("eval", full, expected) from error
    if not isinstance(found, dict):
        raise InvalidArgument("eval", full, f"a configuration of {library}")
    return path.name, found


@contextlib.contextmanager
def _making(library: str, name: str) -> Iterator[None]:
    """While a configuration becomes an object: whatever is wrong with it becomes one line."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # the library's own checks
        expected = f"a configuration of {library} ({words(error)})"
        raise InvalidArgument("eval", f"{library}:{name}", expected) from error


def imported(name: str) -> Any:
    """A module, without the warnings of its own imports and without a look for updates."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            raise
        except Exception as error:  # one that does not go with its own dependencies
            raise ImportError(f"{name} cannot be imported ({words(error)})") from error


def words(error: Exception) -> str:
    """An error of another library in one line; those of one key say nothing without their type."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:250]


def _albumentations(name: str) -> Found:
    library = imported("albumentations")
    kind, config = _read("albumentations", name, (".json", ".yaml", ".yml"))
    with _making("albumentations", name):
        transform = library.from_dict(config)

        def perturb(image: np.ndarray, seed: int) -> Any:
            transform.set_random_seed(seed)
            return transform(image=image)["image"]

    return kind, config, {math.nan: perturb}


def _nrtk(name: str) -> Found:
    configuration = imported("smqtk_core.configuration")
    interfaces = imported("nrtk.interfaces")
    kind, config = _read("nrtk", name, (".json",))
    with _making("nrtk", name):
        own = config.get("PerturberFactory", config)  # as in a file of NRTK's command line
        known = interfaces.PerturbFactory.get_impls() | interfaces.PerturbImage.get_impls()
        made = configuration.from_config_dict(own, known)
        if isinstance(made, interfaces.PerturbImage):
            return kind, config, {math.nan: _seeded(made)}
        thetas = made.thetas
        if len(thetas) != len(made) or not all(isinstance(one, numbers.Real) for one in thetas):
            thetas = range(1, len(made) + 1)  # several parameters at once, or no numbers
        return kind, config, {float(theta): _seeded(made[i]) for i, theta in enumerate(thetas)}


def _seeded(perturber: Any) -> Perturb:
    """A perturber of NRTK whose random parts get a seed: the image's, and those that follow it."""
    parts = [perturber]
    for part in parts:  # grows meanwhile: `ComposePerturber` has others
        parts += getattr(part, "perturbers", ())
    drawing = [part for part in parts if hasattr(part, "_set_seed")]

    def perturb(image: np.ndarray, seed: int) -> Any:
        for place, part in enumerate(drawing):
            part._seed = seed + place
            part._set_seed()
        return perturber(image=image)[0]

    return perturb


def _imagecorruptions(name: str) -> Found:
    library = imported("imagecorruptions")
    _mend(imported("imagecorruptions.corruptions"))
    names = library.get_corruption_names("all")
    kind, _, severity = name.rpartition("_")
    if kind not in names or severity not in [*"12345"]:
        kind, severity = name, ""
    if kind not in names:
        expected = f"some of {', '.join(names)}, each with or without a severity, _1 to _5"
        raise InvalidArgument("eval", f"imagecorruptions:{name}", expected)

    def at(level: int) -> Perturb:
        return lambda image, _: library.corrupt(image, level, kind)

    levels = [int(severity)] if severity else range(1, 6)
    return kind, kind, {float(level): at(level) for level in levels}


def _mend(corruptions: Any) -> None:
    """Gives imagecorruptions what it takes from NumPy 1 and from scikit-image 0.18.

    Its last release is of 2021. `float_` and `multichannel` were renamed; and `random_noise`
    followed NumPy's global seed.
    """
    import numpy as np

    skimage = {name: imported(f"skimage.{name}") for name in ("color", "filters", "util")}

    def gaussian(image: np.ndarray, sigma: float, multichannel: bool = False, **more: Any) -> Any:
        axis = -1 if multichannel else None
        return skimage["filters"].gaussian(image, sigma, channel_axis=axis, **more)

    def random_noise(image: np.ndarray, **more: Any) -> Any:
        seed = np.random.randint(2**31)  # noqa: NPY002
        return skimage["util"].random_noise(image, rng=seed, **more)

    corruptions.np = types.SimpleNamespace(**{**vars(np), "float_": np.float64})
    corruptions.gaussian = gaussian
    corruptions.sk = types.SimpleNamespace(
        color=skimage["color"], util=types.SimpleNamespace(random_noise=random_noise)
    )


LIBRARIES: dict[str, Callable[[str], Found]] = {
    "nrtk": _nrtk,
    "albumentations": _albumentations,
    "imagecorruptions": _imagecorruptions,
}


def is_name(name: str) -> bool:
    """Whether a name is of a perturbation of another library, whether it is there or not."""
    return ":" in name and name.partition(":")[0] in LIBRARIES
