"""The files in the hands of readers that nobody here wrote: pycocotools, and torchvision's reader of VOC."""

import contextlib
import io
import xml.etree.ElementTree as ET

import pytest
from colored import NAMES, Colors, random_folder

from camjax.annotating import Options, annotate_folder
from camjax.data.annotations.voc_xml import read_voc_xml

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    root = tmp_path_factory.mktemp("annotated")
    random_folder(root / "pictures", 21)
    annotate_folder(Colors(), root / "pictures", root / "out", Options(boxes="components", top_k=2, batch_size=8))
    return root / "out"


def test_pycocotools(annotated):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        coco = COCO(annotated / "coco.json")
        results = coco.loadRes(coco.dataset["annotations"])
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(NAMES)
    assert len(coco.getImgIds()) == 21 and len(results.getAnnIds()) == len(coco.getAnnIds()) > 21
    for item in coco.loadAnns(coco.getAnnIds(catIds=coco.getCatIds(catNms=["red"]))):
        assert item["area"] == item["bbox"][2] * item["bbox"][3] and 0 < item["score"] <= 1
    assert evaluation.stats[0] == 1, printed.getvalue()  # boxes compared with themselves


def test_torchvision(annotated):
    pytest.importorskip("torch")
    from benchmarks.peers import import_torchvision

    parse = import_torchvision().datasets.VOCDetection.parse_voc_xml
    for path in (annotated / "voc").rglob("*.xml"):
        parsed, ours = parse(ET.parse(path).getroot())["annotation"], read_voc_xml(path)
        assert parsed["filename"] == f"{path.stem}.png"
        assert tuple(int(parsed["size"][side]) for side in ("height", "width")) == ours.size
        assert tuple(item["name"] for item in parsed["object"]) == ours.classes
        for item, corners in zip(parsed["object"], ours.corners, strict=True):
            assert tuple(int(item["bndbox"][edge]) for edge in ("xmin", "ymin", "xmax", "ymax")) == corners
