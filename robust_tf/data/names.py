"""What names of datasets and settings of pictures may say; the code for them is elsewhere."""

# What names of datasets of picture files begin with: folders of classes, and lists.
FORMS = ("folder", "csv")
# How a picture gets the aspect ratio of the images.
RESIZES = ("crop", "pad", "squash")
# Share for testing where nobody has said which examples are.
TEST_FRACTION = 0.2


def are_named_by(dataset: str) -> bool:
    """Whether a dataset's name is that of picture files: "folder:PATH" or "csv:FILE"."""
    source, mark, _ = dataset.partition(":")
    return source in FORMS and bool(mark)
