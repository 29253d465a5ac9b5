"""A pipeline of one's own with lrf in it: train > compress > deploy, if the gate lets it pass.

Run it on this machine:   python -m examples.pipeline.own_pipeline
Compile it for a cluster: python -m examples.pipeline.own_pipeline --compile digits.yaml
"""

import argparse
import os
from pathlib import Path

from kfp import compiler, dsl, local

from components.compress_model import compress_model

# The image of your own steps: any with TensorFlow.
IMAGE = os.environ.get("OWN_IMAGE", "lrf:0.1.0")


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(model: dsl.Output[dsl.Model], data: dsl.Output[dsl.Dataset], epochs: int = 8) -> None:
    """Train a small CNN on 5,000 MNIST digits; stands for your own training."""
    import shutil
    import tempfile
    from pathlib import Path

    import numpy as np

    from examples.digits.train import load_digits
    from examples.digits.train import train as train_digits

    digits = load_digits()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "digits.keras")
        train_digits(digits, epochs).save(file)
        shutil.copy(file, model.path)
    with Path(data.path).open("wb") as target:
        np.savez_compressed(target, **digits)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def deploy(release: dsl.Input[dsl.Model]) -> str:
    """Load what was released as a model server does; stands for your own deployment."""
    import tensorflow as tf

    served = tf.saved_model.load(f"{release.path}/1").signatures["serving_default"]
    names = sorted(served.structured_input_signature[1])
    location = str(release.metadata["location"])
    print(f"serving {location}, {release.metadata['params_after']:.0f} parameters, inputs {names}")
    return location


@dsl.pipeline(name="digits")
def digits(store: str, params_reduction: float = 0.8, max_accuracy_drop: float = 2.0) -> None:
    """Train, compress, and deploy what passes."""
    trained = train()
    compressed = compress_model(
        model=trained.outputs["model"],
        data=trained.outputs["data"],
        store=store,
        release_name="digits",
        params_reduction=params_reduction,
        max_accuracy_drop=max_accuracy_drop,
        epochs=2,
    )
    with dsl.If(compressed.outputs["Output"] == True, name="Passed"):  # noqa: E712 - a condition
        deploy(release=compressed.outputs["release"])


def main() -> None:
    """Run or compile the pipeline."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--compile", metavar="FILE", help="write YAML for a cluster instead")
    parser.add_argument("--store", default=Path("out/releases").absolute().as_uri())
    arguments = parser.parse_args()
    if arguments.compile:
        compiler.Compiler().compile(digits, arguments.compile)
        return
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root="out/pipeline")
    digits(store=arguments.store)


if __name__ == "__main__":
    main()
