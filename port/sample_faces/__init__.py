"""Sample faces, drawn by a seeded renderer: the data of the demo, with nothing to download.

An identity is a set of traits (head, skin, hair, eyes, brows, nose, mouth, marks, glasses,
beard); a sample adds pose, light, expression, occlusion, background, blur and noise. Parts are
polygons on the surface of a simple head in three dimensions, in units of crop pixels with the
origin at the middle of the head, x to the right, y down, z towards the viewer. After rotation and
perspective the picture is fitted to the five points of SphereFace's alignment, so that the crops
look as aligned ones do.
"""

from port.sample_faces.dataset import SampleSet, write_set
from port.sample_faces.pen import TEMPLATE
from port.sample_faces.render import render

__all__ = ["TEMPLATE", "SampleSet", "render", "write_set"]
