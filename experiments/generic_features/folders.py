"""The data sets of table 5 that are folders of images, in the layouts in which they are distributed."""

from pathlib import Path

import numpy as np

from camjax.data.annotated import open_image_folder
from camjax.data.annotation import AnnotatedSource
from camjax.data.annotations.class_folders import WHOLE_FOLDER
from camjax.data.image_files import check_files
from camjax.data.sources import SourceInfo
from camjax.errors import InputError
from experiments.common.image_lists import Chosen, ListedImages, list_lines
from experiments.common.layouts import check_layout
from experiments.generic_features.images import Images, without_class
from experiments.generic_features.mat_files import read_mat
from experiments.generic_features.splits import Split


def open_indoor67(folder: Path) -> Images:
    """The listed images of MIT Indoor67 (Quattoni and Torralba 2009): 80 for training and 20 for testing of each class.

    Raises:
      FileNotFoundError: something of the layout is missing, or an image of the lists.
    """
    lists = ("TrainImages.txt", "TestImages.txt")
    tree = "Images/\n  airport_inside/\n    airport_inside_0001.jpg\n  ...\nTrainImages.txt\nTestImages.txt"
    where = (
        "The images (2.4 GB) and both lists are at https://web.mit.edu/torralba/www/indoor.html. Give the folder as "
        "--indoor67."
    )
    check_layout(folder, ("Images", *lists), tree, where)
    names = [list_lines(folder / name) for name in lists]
    check_files(folder / "Images", [(name, lists[part]) for part in range(2) for name in names[part]])
    source = open_image_folder(folder / "Images", WHOLE_FOLDER)
    places = {source.annotation(index).filename: index for index in range(len(source))}
    train, test = (np.sort([places[name] for name in part]) for part in names)
    chosen = np.concatenate([train, test])
    labels = np.array([source.annotation(int(index)).label for index in chosen], np.int32)
    split = Split(np.arange(len(train)), np.arange(len(train), len(chosen)))
    return Images(Chosen(source, chosen), labels, source.info.class_names, (split,))


def open_action40(folder: Path) -> Images:
    """Stanford Action40 (Yao et al. 2011), whose lists have 100 training images of each action.

    Raises:
      FileNotFoundError: something of the layout is missing, or an image of the lists.
      ValueError: the folder has no lists.
    """
    tree = """
        ImageSplits/
          applauding_train.txt
          applauding_test.txt
          ...
        JPEGImages/
          applauding_001.jpg
          ...
    """
    where = (
        "Unpack Stanford40_JPEGImages.zip and Stanford40_ImageSplits.zip of "
        "http://vision.stanford.edu/Datasets/40actions.html into one folder, and give it as --action40."
    )
    check_layout(folder, ("ImageSplits", "JPEGImages"), tree, where)
    actions = sorted(path.name.removesuffix("_train.txt") for path in (folder / "ImageSplits").glob("*_train.txt"))
    check_layout(folder, [f"ImageSplits/{action}_test.txt" for action in actions or ["applauding"]], tree, where)
    listed = [
        (name, label, part, f"ImageSplits/{action}_{part}.txt")
        for part in ("train", "test")
        for label, action in enumerate(actions)
        for name in list_lines(folder / f"ImageSplits/{action}_{part}.txt")
    ]
    check_files(folder / "JPEGImages", [(name, list_file) for name, *_, list_file in listed])
    names = [name for name, *_ in listed]
    class_names = tuple(action.replace("_", " ") for action in actions)
    labels = np.array([label for _, label, *_ in listed], np.int32)
    is_train = np.array([part == "train" for _, _, part, _ in listed])
    info = SourceInfo(str(folder), "all", class_names, len(names), ("image", "label", "filename"))
    source = ListedImages(folder / "JPEGImages", names, labels, info)
    return Images(source, labels, class_names, (Split(np.flatnonzero(is_train), np.flatnonzero(~is_train)),))


def open_sun_attribute(folder: Path) -> Images:
    """The SUN Attribute database (Patterson and Hays 2012): three votes on each of 102 attributes of 14,340 images.

    Raises:
      FileNotFoundError: something of the layout is missing, or an image of the list.
      ValueError: the tables do not match.
    """
    tables = ("images", "attributes", "attributeLabels_continuous")
    tree = """
        images/
          a/abbey/sun_....jpg
          ...
        SUNAttributeDB/
          images.mat
          attributes.mat
          attributeLabels_continuous.mat
    """
    where = (
        "Unpack SUNAttributeDB_Images.tar.gz and SUNAttributeDB.tar.gz of https://cs.brown.edu/~gmpatter/sunattributes."
        "html into one folder, and give it as --sun-attribute."
    )
    check_layout(folder, ("images", *(f"SUNAttributeDB/{table}.mat" for table in tables)), tree, where)
    read = {
        variable: read_mat(folder / "SUNAttributeDB" / f"{table}.mat", variable)
        for table, variable in zip(tables, ("images", "attributes", "labels_cv"), strict=True)
    }
    names, attributes = (read[variable].astype(str).ravel().tolist() for variable in ("images", "attributes"))
    votes = read["labels_cv"]
    if votes.dtype.kind not in "fiub" or not np.isfinite(votes).all():
        raise InputError(
            f"{folder / 'SUNAttributeDB'}: attributeLabels_continuous.mat has votes of dtype {votes.dtype}: expected "
            "finite numbers. Fetch it again."
        )
    votes = votes.astype(np.float32)
    if votes.shape != (len(names), len(attributes)):
        raise InputError(
            f"{folder / 'SUNAttributeDB'}: attributeLabels_continuous.mat has shape {votes.shape}, for {len(names)} "
            f"images and {len(attributes)} attributes: expected ({len(names)}, {len(attributes)}). Fetch them again."
        )
    check_files(folder / "images", [(name, "SUNAttributeDB/images.mat") for name in names])
    info = SourceInfo(str(folder), "all", tuple(attributes), len(names), ("image", "label", "filename"))
    return Images(ListedImages(folder / "images", names, np.zeros(len(names), int), info), votes, tuple(attributes))


def open_caltech256(folder: Path) -> Images:
    """Caltech256 (Griffin et al. 2007) without its clutter.

    Raises:
      FileNotFoundError: something of the layout is missing.
      ValueError: the number of folders with images is not 257.
    """
    tree = "256_ObjectCategories/\n  001.ak47/\n    001_0001.jpg\n    ...\n  ...\n  257.clutter/"
    where = (
        "Unpack 256_ObjectCategories.tar (1.2 GB) of https://data.caltech.edu/records/nyy15-4j048, and give the folder "
        "that it is in as --caltech256."
    )
    check_layout(folder, ("256_ObjectCategories",), tree, where)
    source, labels = _class_folders(folder / "256_ObjectCategories", 257, where)
    return without_class(source, labels, source.info.class_names, "257.clutter")


def open_scene15(folder: Path) -> Images:
    """Scene15 (Lazebnik et al. 2006).

    Raises:
      FileNotFoundError: the folder is missing.
      ValueError: the number of folders with images is not 15.
    """
    tree = "bedroom/\n  image_0001.jpg\n  ...\nCALsuburb/\n..."
    where = (
        "Unpack scene_categories.zip of Lazebnik et al. 2006 (92 MB), and give the folder of its classes as --scene15."
    )
    check_layout(folder, (), tree, where)
    source, labels = _class_folders(folder, 15, where)
    return Images(source, labels, source.info.class_names)


def open_event8(folder: Path) -> Images:
    """UIUC Event8 (Li and Fei-Fei 2007).

    Raises:
      FileNotFoundError: the folder is missing.
      ValueError: the number of folders with images is not 8.
    """
    classes = ("badminton", "bocce", "croquet", "polo", "RockClimbing", "rowing", "sailing", "snowboarding")
    tree = "\n".join(f"{name}/\n  ....jpg" for name in classes)
    where = (
        "Unpack event_dataset.rar of http://vision.stanford.edu/lijiali/event_dataset, and give the folder of its "
        "classes as --event8."
    )
    check_layout(folder, (), tree, where)
    source, labels = _class_folders(folder, len(classes), where)
    return Images(source, labels, source.info.class_names)


def _class_folders(folder: Path, classes: int, where: str) -> tuple[AnnotatedSource, np.ndarray]:
    """The images of a folder with a sub-folder for each class, and their labels (n,) int32."""
    source = open_image_folder(folder, WHOLE_FOLDER)
    found = source.info.class_names
    if len(found) != classes:
        raise InputError(
            f"{folder} has images in {len(found)} folders ({', '.join(found[:5])}{', ...' * (len(found) > 5)}): "
            f"expected {classes}, one for each class of the data set. {where}"
        )
    return source, np.array([source.annotation(index).label for index in range(len(source))], np.int32)
