"""People recognised whatever the pose, helped by pose, illumination and expression (Yin & Liu 2018)."""
