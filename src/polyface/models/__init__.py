"""A trained model: its bundle, the shipped ones, what it says of faces. Listing models needs no network engine."""

from polyface.models.zoo import EMBEDDER, ModelInfo, default_models, find, model_info, models, shipped_folder

__all__ = ["EMBEDDER", "ModelInfo", "default_models", "find", "model_info", "models", "shipped_folder"]
