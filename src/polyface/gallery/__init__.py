"""Known faces in a folder: enrolled, searched by photo or caricature, forgotten."""

from polyface.gallery.gallery import Gallery
from polyface.gallery.types import Enrolment, GalleryInfo, Match, Picture, Precomputed
from polyface.inference.embeddings import Embedder

__all__ = ["Embedder", "Enrolment", "Gallery", "GalleryInfo", "Match", "Picture", "Precomputed"]
