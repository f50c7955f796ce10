"""All command lines by name: `robust-tf run …` is `python -m pipelines.run …`."""

import importlib
import sys

COMMANDS = {
    "run": "trains one classifier, tests it and saves it",
    "grid": "trains the robust models of the paper",
    "impact": "tests natural models under every perturbation",
    "ablation": "trains networks without some components",
    "report": "sets results beside the published ones",
    "standardization": "compares three standardisations",
    "evaluate": "tests a saved classifier",
    "export": "makes LiteRT and ONNX files of a saved classifier",
    "compare": "compares saved classifiers",
    "confusions": "shows which classes are confused",
    "corrupt": "writes perturbed test images to files",
    "sensor-map": "maps which defective pixel hurts",
    "pairs": "searches pairs of defective pixels",
    "fleet": "tests a saved classifier on each device of a fleet",
    "certify": "writes a page on a model and the devices that it will run on",
    "remedies": "compares correcting defective pixels with training for them",
    "serve": "says how to serve a SavedModel",
}


def main() -> None:
    """Runs the command that the first argument names."""
    _, *arguments = sys.argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print("robust-tf COMMAND [flags]; robust-tf COMMAND --help lists the flags\n")
        print("\n".join(f"  {name:16} {text}" for name, text in COMMANDS.items()))
        return
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"error: {name}: expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    module = importlib.import_module(f"pipelines.{name.replace('-', '_')}")
    module.cli([f"robust-tf {name}", *rest])


if __name__ == "__main__":
    main()
