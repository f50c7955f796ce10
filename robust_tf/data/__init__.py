"""Examples by index: images, labels, names of classes, and where they came from.

Nothing here perturbs or shuffles.
"""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
    from robust_tf.data import classes
    from robust_tf.data.arrays import from_arrays
    from robust_tf.data.names import are_named_by
    from robust_tf.data.pictures import Pictures
    from robust_tf.data.prepared import hold, place, store
    from robust_tf.data.recorded import load_files, load_test, prepared_corruptions
    from robust_tf.data.sources import (
        DIGESTS,
        SOURCES,
        Auto,
        Sample,
        Source,
        Tfds,
        from_folder,
        from_list,
        load,
    )
    from robust_tf.data.splits import Data, Split, chunk_size, without_autotuning
else:
    __getattr__, __dir__ = on_use(
        __name__,
        {
            "arrays": "from_arrays",
            "names": "are_named_by",
            "pictures": "Pictures",
            "prepared": "hold place store",
            "recorded": "load_files load_test prepared_corruptions",
            "sources": "DIGESTS SOURCES Auto Sample Source Tfds from_folder from_list load",
            "splits": "Data Split chunk_size without_autotuning",
        },
    )

__all__ = [
    "DIGESTS",
    "SOURCES",
    "Auto",
    "Data",
    "Pictures",
    "Sample",
    "Source",
    "Split",
    "Tfds",
    "are_named_by",
    "chunk_size",
    "classes",
    "from_arrays",
    "from_folder",
    "from_list",
    "hold",
    "load",
    "load_files",
    "load_test",
    "place",
    "prepared_corruptions",
    "store",
    "without_autotuning",
]
