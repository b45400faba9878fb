"""Progressive columns: emotion, age, gender and identity on a BEGAN's encoder (Barros et al. 2019)."""
