"""What may be asked of datasets of picture files; which files these are is in `listings`."""

from __future__ import annotations

import dataclasses
import operator
from typing import TYPE_CHECKING, Annotated, Any

from robust_tf.data.names import RESIZES, TEST_FRACTION
from robust_tf.errors import InvalidArgument
from robust_tf.settings import Setting, check_fields, choice, number, whole

if TYPE_CHECKING:
    from robust_tf.data.listings import Listing


def _height_and_width(value: Any) -> Any:
    texts = value.split(",") if isinstance(value, str) else value
    texts = texts.tolist() if hasattr(texts, "tolist") else texts  # of NumPy
    texts = texts if isinstance(texts, list | tuple) else [texts]
    try:
        sides = tuple(int(one) if isinstance(one, str) else operator.index(one) for one in texts)
    except (TypeError, ValueError):
        return value
    return sides * 2 if len(sides) == 1 else sides


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(side, int) and side > 0 for side in value)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """How picture files of any size and mode become images, and which of them are for testing.

    Attributes:
        image_size: (H, W) of the images; None for that of the files, which must then be of one.
        resize: how a picture gets there, one of `names.RESIZES`.
        color: "gray", "rgb", or "auto": grey where all pictures are.
        test_fraction: share of each class for testing, where there is no test split; None for 0.2.
        split_seed: decides which these are; None for 0.
    """

    image_size: Annotated[
        tuple[int, int] | None,
        Setting(
            "Height and width that pictures are resized to.",
            list,
            "height and width in pixels, such as 96,96",
            _is_size,
            parse=_height_and_width,
            default="theirs, where all have one size; or that of the trained model that is tested",
        ),
    ] = None
    resize: Annotated[
        str,
        choice(
            "How a picture gets another aspect ratio: its centre is cropped, or it is padded with "
            "black, or squashed.",
            RESIZES,
        ),
    ] = "crop"
    color: Annotated[
        str,
        choice(
            "What pictures become: gray, rgb, or auto: gray where all of them are.",
            ("auto", "gray", "rgb"),
        ),
    ] = "auto"
    test_fraction: Annotated[
        float | None,
        number(
            "Share of each class of pictures for testing, where there is no test split.",
            above=0,
            at_most=1,
            default=f"{TEST_FRACTION:g}",
        ),
    ] = None
    split_seed: Annotated[
        int | None,
        whole(
            "Decides which pictures these are, the same for all values of --seed.", 0, default="0"
        ),
    ] = None

    def __post_init__(self):
        """Checks the settings."""
        check_fields(self)

    def check_unused(self, dataset: str) -> None:
        """Raises `InvalidArgument` if something is asked for that only picture files have."""
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) != field.default:
                raise InvalidArgument(field.name, value, f"no value with dataset={dataset}")

    def find(self, dataset: str) -> Listing:
        """Sees which files there are, and what they are; decodes none.

        Args:
            dataset: "folder:PATH" or "csv:FILE".

        Raises:
            InvalidArgument: if they make no dataset, or a setting does not fit them.
            Unavailable: if they are not there, or cannot be read.
        """
        from robust_tf.data import listings

        return listings.find(dataset, **dataclasses.asdict(self))
