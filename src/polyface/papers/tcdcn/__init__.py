"""TCDCN: five landmarks helped by gender, smile, glasses and pose (Zhang, Luo, Loy & Tang 2014)."""
