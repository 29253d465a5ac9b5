"""Low-rank compression of Keras CNNs: from a trained model to a smaller one that passed a gate.

The public names, in the order of use, are listed in `__init__.pyi`. They are imported on first use:
`lrf --help` need not wait for TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
