"""The programs behind every claim of speed: `rt2 bench`, and scripts of their own."""
