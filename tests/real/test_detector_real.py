"""The detector on MTFL: it finds the face that a row is about, its points in MTFL's order, where they are."""

from __future__ import annotations

import numpy as np
import pytest

from polyface.data.detector import RetinaFace, face_of
from polyface.data.images import decode
from polyface.data.readers import reader


def five_points(root, source, count):
    rows = [f for f in reader("mtfl").records(root) if f.labels["source"] == source]
    return [(decode(f.image), f.labels["landmarks_5"]) for f in rows[:: len(rows) // count][:count]]


@pytest.fixture(scope="module")
def detector():
    return RetinaFace(threads=1)


@pytest.mark.parametrize("source", ["lfw_5590", "net_7876", "AFLW"])
def test_recall_and_points(real_data, detector, source):
    errors = []
    for image, truth in five_points(real_data("mtfl"), source, 100):
        found = face_of(detector(image), image.shape[1], image.shape[0])
        extent = np.ptp(truth, axis=0).max()  # the inter-ocular distance of a profile is next to nothing
        errors.append(np.inf if found is None else np.linalg.norm(found.points - truth, axis=1).mean() / extent)
    hits = np.array(errors) < 0.25
    assert hits.mean() >= 0.95
    assert np.array(errors)[hits].mean() < 0.08


def test_boxes_hold_the_points(real_data, detector):
    for image, truth in five_points(real_data("mtfl"), "net_7876", 30):
        found = face_of(detector(image), image.shape[1], image.shape[0])
        middle = truth.mean(0)
        assert (found.box[:2] < middle).all()
        assert (middle < found.box[2:]).all()


def test_coordinates_are_pixel_centres(real_data, detector):
    """In a mirrored image, x becomes width - 1 - x: true of pixel centres counted from 0, and of nothing else."""
    swap, off = [1, 0, 2, 4, 3], []
    for image, _ in five_points(real_data("mtfl"), "net_7876", 300):
        height, width = image.shape[:2]
        found = face_of(detector(image), width, height)
        mirrored = face_of(detector(np.ascontiguousarray(image[:, ::-1])), width, height)
        if found is not None and mirrored is not None:
            both = found.points[:, 0] - (width - 1 - mirrored.points[swap, 0])
            if np.abs(both).max() < 8:
                off.append(both / 2)  # the offset shows once in each image
    assert len(off) > 280
    assert abs(np.mean(off)) < 0.25  # counted from the corner of the first pixel it would be 0.5


def test_training_points_agree_with_the_detector(real_data, detector):
    """Were 1 not taken off MTFL's coordinates, both would be a pixel off."""
    off = []
    for source in ("lfw_5590", "net_7876"):
        for image, truth in five_points(real_data("mtfl"), source, 100):
            found = face_of(detector(image), image.shape[1], image.shape[0])
            if found is not None and np.abs(found.points - truth).max() < 8:
                off.append((found.points - truth).mean(0))
    assert np.abs(np.mean(off, axis=0)).max() < 0.5
