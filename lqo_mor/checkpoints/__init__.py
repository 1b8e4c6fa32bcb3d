"""Checkpoint formats: safe reading, recognition and atomic writing."""

from lqo_mor.checkpoints.registry import load_checkpoint as load_checkpoint
from lqo_mor.checkpoints.streaming import compress_file as compress_file
