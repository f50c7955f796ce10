"""What flags of tests may say, besides kinds of perturbation."""

# What `recordings` writes perturbed test images as.
FORMATS = ("npy", "png", "tfds")
