"""Learners, compiled scorers and the snapshots between them; the only package that imports River."""
