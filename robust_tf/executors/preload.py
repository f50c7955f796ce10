"""What the process has imported that others are forked from: TensorFlow, without its chatter."""

from robust_tf import machine

machine.load_tensorflow()
