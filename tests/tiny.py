"""Small models and data for tests: trained in seconds, with the kinds of layers of real ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from lrf_core.data import Data, Split


@dataclass(frozen=True)
class Trained:
    """A trained model and its data; `model_file` and `data_file` hold the same."""

    model: keras.Model
    data: Data
    model_file: Path
    data_file: Path


def tiny_cnn(
    input_shape: tuple[int, int, int] = (16, 16, 3),
    classes: int = 4,
    seed: int = 0,
    *,
    filters: tuple[int, ...] = (8, 16),
    logits: bool = False,
    residual: bool = True,
    name: str = "tiny",
) -> keras.Model:
    """An untrained CNN: per stage Conv (stride 2 from the second on), batch norm, ReLU and a
    residual 3x3 Conv; then global pooling, a hidden Dense and the output Dense.

    Layers are named `conv0`, `conv0b`, ..., `hidden`, `answer`. Takes pixels in 0..255.
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    inputs = keras.Input(input_shape, name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for i, width in enumerate(filters):
        x = layers.Conv2D(
            width, 3, strides=1 if i == 0 else 2, padding="same", use_bias=False, name=f"conv{i}"
        )(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9, name=f"norm{i}")(x))
        if residual:
            y = layers.Conv2D(width, 3, padding="same", name=f"conv{i}b")(x)
            y = layers.BatchNormalization(momentum=0.9, name=f"norm{i}b")(y)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    outputs = layers.Dense(classes, activation=None if logits else "softmax", name="answer")(x)
    return keras.Model(inputs, outputs, name=name)


def tiny_arrays(
    count: int,
    input_shape: tuple[int, int, int] = (16, 16, 3),
    classes: int = 4,
    seed: int = 0,
    noise: float = 110.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Learnable images `(count, *input_shape)` uint8 and class ids `(count,)`.

    A class is a grating of its own direction at a random phase, under noise. The classes do not
    depend on the seed, so that two calls give train and test samples of one problem.
    """
    random = np.random.default_rng(seed)
    height, width, channels = input_shape
    labels = np.arange(count) % classes
    random.shuffle(labels)
    angles = np.pi * labels / classes
    phases = random.uniform(0, 2 * np.pi, count)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = np.sin(
        1.2 * np.cos(angles)[:, None, None] * rows
        + 1.2 * np.sin(angles)[:, None, None] * columns
        + phases[:, None, None]
    )
    shades = np.linspace(1.0, 0.5, channels)
    images = 128 + 60 * waves[..., None] * shades + random.normal(0, noise, (count, *input_shape))
    return np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int64)


def tiny_data(
    train: int = 512,
    test: int = 256,
    input_shape: tuple[int, int, int] = (16, 16, 3),
    classes: int = 4,
    seed: int = 0,
    noise: float = 110.0,
) -> Data:
    """The problem of `tiny_arrays` as Data."""
    x_train, y_train = tiny_arrays(train, input_shape, classes, 2 * seed, noise)
    x_test, y_test = tiny_arrays(test, input_shape, classes, 2 * seed + 1, noise)
    return Data(
        train=Split.of(x_train, y_train),
        test=Split.of(x_test, y_test),
        class_names=tuple(f"class{i}" for i in range(classes)),
        source="tiny",
        digest=hashlib.sha256(x_train.tobytes() + x_test.tobytes()).hexdigest(),
    )


def train_tiny(model: keras.Model, data: Data, epochs: int = 4, seed: int = 0) -> keras.Model:
    """Train `model` in place on the training samples and return it, not compiled."""
    keras.utils.set_random_seed(seed)
    samples, labels = data.train.arrays()
    logits = model.layers[-1].get_config().get("activation") == "linear"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    trainer = keras.Model(model.inputs, model.outputs)  # shares the weights, keeps `model` clean
    trainer.compile(keras.optimizers.Adam(5e-3), loss)
    trainer.fit(samples.astype("float32"), labels, batch_size=32, epochs=epochs, verbose=0)
    return model


def accuracy(model: keras.Model, split: Split) -> float:
    """Percent of samples whose largest output is at the label."""
    samples, labels = split.arrays()
    answers = model.predict(samples.astype("float32"), batch_size=256, verbose=0)
    return 100.0 * float(np.mean(answers.argmax(axis=-1) == labels))
