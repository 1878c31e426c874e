import pytest

from camjax.data import scenes
from camjax.data.sources import open_source


@pytest.fixture(scope="session")
def scenes_dir(tmp_path_factory):
    """A folder of tfds with few scenes: 60 for training, 30 each for validation and test. Not to be written to."""
    data_dir = tmp_path_factory.mktemp("scenes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "NUM_SCENES", {"train": 60, "validation": 30, "test": 30})
        open_source("scenes", "train", data_dir=data_dir)
    return data_dir
