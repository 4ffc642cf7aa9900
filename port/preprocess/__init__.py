"""From photographs to training lists: detection, alignment, lists."""
