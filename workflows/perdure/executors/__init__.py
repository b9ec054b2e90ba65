"""Places where steps run, behind one contract: ``protocol.py``."""
