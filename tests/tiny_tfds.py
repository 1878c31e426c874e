"""Small data sets as tensorflow-datasets would leave them, without its builders and TensorFlow."""

import tensorflow_datasets as tfds


def prepare_tfds(data_dir, dataset, features, splits, *, version="1.0.0", config=None):
    """Prepares a data set of this name. Give images as encoded files: tfds encodes arrays with TensorFlow.

    Args:
      data_dir: where tfds is to find it.
      dataset: its name.
      features: those of an example, by name.
      splits: split -> examples, which tfds shuffles.
      version: of the data set.
      config: the name of its configuration, if it has one.
    """

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []
        pkg_dir_path = data_dir

        def _info(self):
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(examples) for split, examples in splits.items()}

        def _generate_examples(self, examples):
            yield from enumerate(examples)

    Tiny(data_dir=data_dir).download_and_prepare(file_format="array_record")
