"""DMM-CNN: forty attributes helped by landmarks, weighted dynamically (Mao, Yan, Xue & Wang 2020)."""
