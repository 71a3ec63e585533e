"""From prototxt to the net that is built: reading, upgrading, filtering, splits.

Messages in, messages out; no tensors.
"""
