"""Boxes in COCO's format: what can be named is read, and what cannot be right is refused."""

import json

import pytest

from rt2_jax.data.coco import read_boxes


@pytest.fixture
def write(tmp_path):
    """Writes `instances.json` of one photo of 20 x 10 pixels with these annotations."""

    def make(*annotations, **changes):
        data = {
            "images": [{"id": 4, "file_name": "4.jpg", "width": 20, "height": 10}],
            "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
            "annotations": [
                {"id": 70 + i, "image_id": 4, "category_id": 1, "bbox": [0, 0, 2, 2], **each}
                for i, each in enumerate(annotations)
            ],
        }
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(data | changes))
        return path

    return make


def test_boxes_are_fractions_of_the_sides(write):
    (photo,) = read_boxes(write({"bbox": [5, 1, 10, 4], "category_id": 3}))
    assert (photo.id, photo.file) == (4, "4.jpg")
    (thing,) = photo.things
    assert (thing.name, thing.box) == ("dog", (0.25, 0.1, 0.5, 0.4))
    assert thing.middle == pytest.approx((0.3, 0.5))


def test_photos_without_a_box_are_there(write):
    (photo,) = read_boxes(write())
    assert photo.things == ()


def test_only_what_is_the_one_of_its_name_can_be_pointed_to(write):
    (photo,) = read_boxes(write({}, {"category_id": 3}, {"bbox": [3, 3, 1, 1]}))
    assert [thing.name for thing in photo.things] == ["cat", "dog", "cat"]
    assert [thing.name for thing in photo.unique()] == ["dog"]


def test_a_crowd_hides_those_of_its_name(write):
    (photo,) = read_boxes(write({}, {"category_id": 3}, {"iscrowd": 1, "bbox": [0, 0, 20, 10]}))
    assert [thing.name for thing in photo.things] == ["dog"]


@pytest.mark.parametrize("box", [[15, 0, 6, 2], [-1, 0, 3, 3], [0, 9, 2, 2], [0, 0, -2, 2]])
def test_a_box_outside_its_photo_is_refused(write, box):
    with pytest.raises(ValueError, match="annotation 70: bbox .* not inside the 20 x 10 pixels"):
        read_boxes(write({"bbox": box}))


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"category_id": 2}, "category_id 2 of an annotation is described nowhere"),
        ({"image_id": 5}, "image_id 5 of an annotation is described nowhere"),
    ],
)
def test_references_to_nothing_are_refused(write, annotation, message):
    with pytest.raises(ValueError, match=f"instances.json: {message}"):
        read_boxes(write(annotation))


def test_what_is_not_cocos_format_is_named(write, tmp_path):
    with pytest.raises(ValueError, match="instances.json: not in COCO's format .* 'height'"):
        read_boxes(write(images=[{"id": 4, "file_name": "4.jpg", "width": 20}]))
    path = write()
    path.write_text('{"images": [], "annotations": []}')
    with pytest.raises(ValueError, match="missing keys \\['categories'\\]"):
        read_boxes(path)
    path.write_text(path.read_text()[:9])
    with pytest.raises(ValueError, match="instances.json: damaged, not JSON"):
        read_boxes(path)
    with pytest.raises(FileNotFoundError, match="no file .*other.json; set RT2_DATA_DIR"):
        read_boxes(tmp_path / "other.json")


def test_boxes_of_real_photos_are_read(shared_data):
    photos = read_boxes(shared_data / "coco/ccby/instances.json")
    assert photos and any(photo.unique() for photo in photos)
    for photo in photos:
        assert all(0 <= value <= 1 for thing in photo.things for value in thing.middle)
