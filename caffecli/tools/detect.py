"""``caffecli detect``: the objects in pictures, which a detector finds, or the classes of windows of pictures."""

from caffecli.tools.detect_objects import ObjectOptions, detect_objects, is_detector
from caffecli.tools.detect_windows import WindowOptions, detect_windows

__all__ = ["ObjectOptions", "WindowOptions", "detect_objects", "detect_windows", "is_detector"]
