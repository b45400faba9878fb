"""An encoder learns from faces without labels: with a decoder alone, or against a generator (BEGAN)."""
