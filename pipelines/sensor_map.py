"""Maps which defective pixel hurts a classifier: one defect at every position in turn.

Example:
  python -m pipelines.sensor_map --model=saved_models/<run> --defect=hot
"""

from absl import flags

from pipelines import app
from robust_tf.studies import sensor_map

app.define_model_flags()
_BASELINE = flags.DEFINE_string(
    "baseline",
    None,
    "Another model, which --signature, --output and --input_range also hold for; its map is drawn "
    "beside, in the same colours.",
)
_DEFECT = flags.DEFINE_string(
    "defect", "hot", "What the pixel shows: hot (1), dead (0), or a value from 0 to 1."
)
app.define_data_flags()
flags.DEFINE_string("output_dir", "results", "Where a folder for the map is made.")

# How many positions are printed.
_SHOWN = 10


def main() -> None:
    """Runs what the flags say."""
    values = flags.FLAGS
    sensor_map.defect_value(_DEFECT.value)
    classifier = app.load_classifier()
    baseline = app.load_classifier("baseline") if _BASELINE.value else None
    dataset = app.load_data_of(classifier)
    with app.outputs() as folders:
        folder, positions, summary = sensor_map.write(
            classifier, dataset, _DEFECT.value, baseline=baseline, **folders
        )
    print(
        f"\nOne {_DEFECT.value} pixel at each of {len(positions) // len(summary):,} positions, "
        f"{len(dataset.test):,} test images of {dataset.name} ({dataset.source}), in percent\n"
    )
    shown = summary.set_index("training" if summary["training"].is_unique else "model")[
        [name for name in summary if "_" in name]
    ]
    shown = shown.drop(columns=["data_source", "n_examples"]).mul(100).round(2)
    print(shown.rename_axis(None).to_string())
    own = positions[positions["model"] == summary["model"].iloc[-1]]
    worst = own.nsmallest(_SHOWN, "accuracy").drop(columns="model")
    percent = ["accuracy", "flipped", "towards_share"]
    worst[percent] = worst[percent].mul(100).round(2)
    print(f"\nThe positions that cost {classifier.name} most\n")
    print(worst.to_string(index=False))
    print(f"\npositions  {values.output_dir}/{folder.name}/positions.csv")
    print(f"figure     {values.output_dir}/{folder.name}/figures/sensor-map.png")


if __name__ == "__main__":
    app.launch(main)
