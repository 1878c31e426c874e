"""What camjax takes of tensorflow-datasets, or the error that names the extra which brings it."""

from camjax.errors import require_extra

require_extra("data", "A data set of tensorflow-datasets", "tensorflow_datasets")

import tensorflow_datasets as tfds  # noqa: E402
from tensorflow_datasets.core.download import checksums  # noqa: E402
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError  # noqa: E402

__all__ = ["NonMatchingChecksumError", "checksums", "tfds"]
