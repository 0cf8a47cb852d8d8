"""The source papers' claims, each as a direction and a ratio on a small model; see docs/reproductions.md."""
